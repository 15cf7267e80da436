"""The compiled backup against the planner's own evaluation, and against itself in other company."""

import numpy as np
import pytest

from policylab.agents.tabular.compiled_values import values_within
from policylab.envs.enumeration import table_for
from policylab.envs.planners import evaluate_policy
from policylab.envs.settings import EnvSettings


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v3", "Blackjack-v1"])
def test_values_are_the_planners_and_do_not_depend_on_the_policies_beside_them(env_id):
    mdp = table_for(EnvSettings(id=env_id))
    policies = np.random.default_rng(0).integers(mdp.n_actions, size=(5, mdp.n_states))
    values = values_within(mdp, policies, horizon=60)
    for policy, of_states in zip(policies, values, strict=True):
        expected = evaluate_policy(mdp, policy, discount=1.0, horizon=60)
        np.testing.assert_allclose(of_states, expected, rtol=1e-12, atol=1e-12)
        assert (values_within(mdp, policy[None], horizon=60)[0] == of_states).all()

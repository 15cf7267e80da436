"""Updates of every algorithm, by hand, on arrays small enough to read."""

import math

import numpy as np
import pytest

from policylab.agents.build import AGENTS
from policylab.agents.tabular.core import Size, Step, make_core
from policylab.agents.tabular.traces import NEGLIGIBLE
from policylab.seeding import generator

ALPHA, GAMMA = 0.5, 0.9


def fresh(kind, *, n_states=4, n_actions=2, q=None, **settings):
    """Return an algorithm of ``kind`` with α 0.5, γ 0.9 and greedy actions over a small table."""
    agent = AGENTS.load(kind)
    given = {"discount": GAMMA, "exploration": {"kind": "greedy"}, "learning_rate": ALPHA, **settings}
    if kind == "off_policy_monte_carlo":
        del given["learning_rate"]
    size = Size(n_states, n_actions, 1, 50)
    chosen = agent.Settings.model_validate({"kind": kind, **given})
    core = make_core(chosen, size, budget_steps=100, rng=generator(0, "agent"))
    if q is not None:
        core.q[...] = q
    return agent.algorithm(chosen, core, size=size)


def step(state, action, reward, next_state, *, next_action=-1, time=0, terminated=False, truncated=False):
    return Step(time, state, action, reward, next_state, next_action, terminated, truncated)


Q = np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 0.0], [7.0, 6.0]])


def test_q_learning():
    algorithm = fresh("q_learning", q=Q)
    assert algorithm.update(step(0, 1, 10.0, 1)) == pytest.approx(10 + 0.9 * 5 - 2)
    assert algorithm.core.q[0, 1] == pytest.approx(2 + 0.5 * 12.5)
    assert np.array_equal(np.delete(algorithm.core.q.ravel(), 1), np.delete(Q.ravel(), 1))


def test_sarsa_uses_the_action_taken_next():
    algorithm = fresh("sarsa", q=Q)
    algorithm.update(step(0, 1, 10.0, 1, next_action=0))
    assert algorithm.core.q[0, 1] == pytest.approx(2 + 0.5 * (10 + 0.9 * 3 - 2))


def test_expected_sarsa_averages_over_the_policy():
    algorithm = fresh("expected_sarsa", q=Q, exploration={"kind": "epsilon_greedy", "epsilon": 0.2})
    algorithm.update(step(0, 1, 10.0, 1))
    assert algorithm.core.q[0, 1] == pytest.approx(2 + 0.5 * (10 + 0.9 * (0.1 * 3 + 0.9 * 5) - 2))


@pytest.mark.parametrize("kind", ["q_learning", "sarsa", "expected_sarsa", "double_q_learning"])
def test_termination_does_not_bootstrap_and_truncation_does(kind):
    ended, cut = fresh(kind, q=Q), fresh(kind, q=Q)
    ended.update(step(0, 1, 10.0, 1, terminated=True))
    cut.update(step(0, 1, 10.0, 1, next_action=1, truncated=True))
    share = 0.5 if kind == "double_q_learning" else 1.0  # one table of two learns, and q is their mean
    assert ended.core.q[0, 1] == pytest.approx(2 + share * 0.5 * (10 - 2))
    assert cut.core.q[0, 1] == pytest.approx(2 + share * 0.5 * (10 + 0.9 * 5 - 2))


def test_double_q_learning_values_one_table_s_choice_by_the_other():
    algorithm = fresh("double_q_learning", q=Q)
    algorithm.first[1], algorithm.second[1] = [4.0, 0.0], [1.0, 9.0]
    for _ in range(40):
        algorithm.update(step(0, 0, 0.0, 1))
    # the first table picks action 0, worth 1 in the second; the second picks action 1, worth 0 in the first
    assert algorithm.first[0, 0] == pytest.approx(0.9 * 1, abs=1e-3)
    assert algorithm.second[0, 0] == pytest.approx(0.9 * 0, abs=1e-3)
    assert algorithm.core.q[0, 0] == (algorithm.first[0, 0] + algorithm.second[0, 0]) / 2


def test_n_step_sarsa_waits_for_n_rewards_and_flushes_at_the_end():
    algorithm = fresh("n_step_sarsa", n=3)
    algorithm.core.q[3, 0] = 8.0
    assert algorithm.update(step(0, 0, 1.0, 1, next_action=0)) == 0.0
    assert algorithm.update(step(1, 0, 2.0, 2, next_action=0)) == 0.0
    assert not algorithm.core.q[:3].any()
    algorithm.update(step(2, 0, 4.0, 3, next_action=0))
    assert algorithm.core.q[0, 0] == pytest.approx(0.5 * (1 + 0.9 * 2 + 0.81 * 4 + 0.729 * 8))
    algorithm.update(step(3, 1, 16.0, 3, terminated=True))
    assert algorithm.core.q[1, 0] == pytest.approx(0.5 * (2 + 0.9 * 4 + 0.81 * 16))
    assert algorithm.core.q[2, 0] == pytest.approx(0.5 * (4 + 0.9 * 16))
    assert algorithm.core.q[3, 1] == pytest.approx(0.5 * 16)
    assert algorithm.ring[1] == 0


def test_n_step_sarsa_bootstraps_all_it_flushes_at_truncation():
    algorithm = fresh("n_step_sarsa", n=5)
    algorithm.core.q[3, 0] = 8.0
    algorithm.update(step(0, 0, 1.0, 1, next_action=0))
    algorithm.update(step(1, 0, 2.0, 3, next_action=0, truncated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(0.5 * (1 + 0.9 * 2 + 0.81 * 8))
    assert algorithm.core.q[1, 0] == pytest.approx(0.5 * (2 + 0.9 * 8))


def test_n_step_sarsa_with_one_step_is_sarsa():
    one, sarsa = fresh("n_step_sarsa", n=1, q=Q), fresh("sarsa", q=Q)
    for taken in (
        step(0, 1, 1.0, 1, next_action=0),
        step(1, 0, 2.0, 3, next_action=1),
        step(3, 1, 5.0, 0, terminated=True),
    ):
        assert one.update(taken) == sarsa.update(taken)
    assert np.array_equal(one.core.q, sarsa.core.q)


@pytest.mark.parametrize(
    ("kind", "second_visit"),
    [("accumulating", 0.45 + 1.0), ("replacing", 1.0), ("dutch", 0.5 * 0.45 + 1.0)],
)
def test_traces(kind, second_visit):
    algorithm = fresh("sarsa_lambda", traces=kind, trace_decay=0.5)
    algorithm.update(step(0, 0, 0.0, 0, next_action=0))
    assert algorithm.traces.eligibility[0, 0] == pytest.approx(0.45)  # γ λ
    algorithm.update(step(0, 0, 2.0, 1, next_action=1))
    assert algorithm.core.q[0, 0] == pytest.approx(0.5 * 2.0 * second_visit)
    algorithm.update(step(1, 1, 1.0, 2, terminated=True))
    assert algorithm.core.q[1, 1] == pytest.approx(0.5)
    assert algorithm.core.q[0, 0] == pytest.approx(second_visit + 0.5 * 0.45 * second_visit)
    assert not algorithm.traces.eligibility.any()
    assert algorithm.traces.n_listed[0] == 0


def test_negligible_traces_are_dropped():
    algorithm = fresh("sarsa_lambda", trace_decay=0.1, n_states=60)
    for place in range(59):
        algorithm.update(step(place, 0, 0.0, place + 1, next_action=0))
    assert algorithm.traces.n_listed[0] == math.ceil(math.log(NEGLIGIBLE) / math.log(0.09)) - 1


def test_watkins_cuts_the_traces_at_an_exploring_action():
    greedy, exploring = fresh("q_lambda", q=Q), fresh("q_lambda", q=Q)
    greedy.update(step(0, 1, 10.0, 1, next_action=1))
    exploring.update(step(0, 1, 10.0, 1, next_action=0))
    assert greedy.core.q[0, 1] == exploring.core.q[0, 1] == pytest.approx(2 + 0.5 * (10 + 0.9 * 5 - 2))
    assert greedy.traces.eligibility[0, 1] == pytest.approx(0.9 * 0.9)
    assert not exploring.traces.eligibility.any()


def test_sarsa_lambda_without_decay_is_sarsa():
    traced, sarsa = fresh("sarsa_lambda", trace_decay=0.0, q=Q), fresh("sarsa", q=Q)
    for taken in (
        step(0, 1, 1.0, 1, next_action=0),
        step(1, 0, 2.0, 3, next_action=1),
        step(3, 1, 5.0, 0, terminated=True),
    ):
        traced.update(taken)
        sarsa.update(taken)
    assert np.array_equal(traced.core.q, sarsa.core.q)


def test_dyna_q_plans_only_with_what_it_has_seen():
    algorithm = fresh("dyna_q", planning_steps=50)
    algorithm.update(step(0, 0, 1.0, 1, terminated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(1.0)  # the one remembered step, replayed to its limit
    assert np.count_nonzero(algorithm.core.q) == 1
    algorithm.update(step(2, 1, 0.0, 0))
    assert algorithm.core.q[2, 1] == pytest.approx(0.9, abs=1e-3)


def test_dyna_q_plus_earns_a_bonus_for_what_was_long_untried():
    algorithm = fresh("dyna_q_plus", planning_steps=400, bonus=0.1, discount=0.0)
    algorithm.update(step(0, 0, 1.0, 1, time=100, terminated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(1.0)
    assert algorithm.core.q[0, 1] == pytest.approx(0.1 * math.sqrt(100))  # untried, thought to lead nowhere
    assert not algorithm.core.q[1:].any()


def test_prioritized_sweeping_carries_a_reward_back_along_the_path():
    algorithm = fresh("prioritized_sweeping", planning_steps=10, learning_rate=1.0)
    for state in range(3):
        algorithm.update(step(state, 0, 0.0, state + 1))
    assert not algorithm.core.q.any()
    algorithm.update(step(3, 0, 1.0, 3, terminated=True))
    assert algorithm.core.q[:, 0] == pytest.approx([0.729, 0.81, 0.9, 1.0])


def test_prioritized_sweeping_leaves_small_errors_alone():
    algorithm = fresh("prioritized_sweeping", planning_steps=10, threshold=0.5)
    algorithm.update(step(0, 0, 0.5, 1, terminated=True))
    assert not algorithm.core.q.any()
    algorithm.update(step(0, 0, 0.6, 1, terminated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(0.3)


def test_monte_carlo_averages_the_returns_of_first_visits():
    algorithm = fresh("monte_carlo", learning_rate={"kind": "inverse_visits"})
    for reward in (4.0, 2.0):
        algorithm.update(step(0, 0, 1.0, 0, next_action=0))
        algorithm.update(step(0, 0, 0.0, 1, next_action=1))
        algorithm.update(step(1, 1, reward, 2, terminated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(1 + 0.81 * 3)
    assert algorithm.core.q[1, 1] == pytest.approx(3.0)
    assert algorithm.core.updates[0, 0] == 2
    assert (algorithm.first == -1).all()


def test_monte_carlo_continues_a_truncated_return_with_the_value_there():
    algorithm = fresh("monte_carlo")
    algorithm.core.q[1, 1] = 10.0
    algorithm.update(step(0, 0, 1.0, 1, next_action=1, truncated=True))
    assert algorithm.core.q[0, 0] == pytest.approx(0.5 * (1 + 0.9 * 10))


def test_off_policy_monte_carlo_weights_by_the_inverse_probability():
    algorithm = fresh("off_policy_monte_carlo", exploration={"kind": "epsilon_greedy", "epsilon": 0.5})
    algorithm.core.q[0], algorithm.core.q[1] = [1.0, 0.0], [1.0, 0.0]
    algorithm.update(step(0, 0, 0.0, 1))
    algorithm.update(step(1, 0, 2.0, 2, terminated=True))
    assert algorithm.core.q[1, 0] == pytest.approx(2.0)
    assert algorithm.weights[1, 0] == 1.0
    assert algorithm.weights[0, 0] == pytest.approx(1 / 0.75)  # b(greedy) = 1 - ε + ε / 2
    assert algorithm.core.q[0, 0] == pytest.approx(0.9 * 2.0)


def test_off_policy_monte_carlo_stops_before_an_exploring_action():
    algorithm = fresh("off_policy_monte_carlo", exploration={"kind": "epsilon_greedy", "epsilon": 0.5})
    algorithm.core.q[1] = [5.0, 0.0]
    algorithm.update(step(0, 0, 0.0, 1))
    algorithm.update(step(1, 1, 2.0, 2, terminated=True))  # action 0 stays the better one
    assert algorithm.core.q[1, 1] == pytest.approx(2.0)
    assert algorithm.core.q[0, 0] == 0.0

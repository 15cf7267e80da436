"""The agents, by the ``kind`` an experiment file names them with.

An entry is a class with `Settings` and ``make(settings, env_settings, *, seed, budget_steps) -> Agent``.
"""

from __future__ import annotations

from policylab.registry import Registry

_TABULAR = "policylab.agents.tabular"
_BANDITS = "policylab.agents.bandit_kinds"

AGENTS = Registry(
    "agent",
    {
        "q_learning": f"{_TABULAR}.q_learning:QLearning",
        "sarsa": f"{_TABULAR}.sarsa:Sarsa",
        "expected_sarsa": f"{_TABULAR}.expected_sarsa:ExpectedSarsa",
        "double_q_learning": f"{_TABULAR}.double_q_learning:DoubleQLearning",
        "n_step_sarsa": f"{_TABULAR}.n_step_sarsa:NStepSarsa",
        "sarsa_lambda": f"{_TABULAR}.sarsa_lambda:SarsaLambda",
        "q_lambda": f"{_TABULAR}.q_lambda:QLambda",
        "dyna_q": f"{_TABULAR}.dyna_q:DynaQ",
        "dyna_q_plus": f"{_TABULAR}.dyna_q:DynaQPlus",
        "prioritized_sweeping": f"{_TABULAR}.prioritized_sweeping:PrioritizedSweeping",
        "monte_carlo": f"{_TABULAR}.monte_carlo:MonteCarlo",
        "off_policy_monte_carlo": f"{_TABULAR}.monte_carlo:OffPolicyMonteCarlo",
        "bandit_epsilon_greedy": f"{_BANDITS}:BanditEpsilonGreedy",
        "bandit_optimistic": f"{_BANDITS}:BanditOptimistic",
        "bandit_ucb1": f"{_BANDITS}:BanditUcb1",
        "bandit_gradient": f"{_BANDITS}:BanditGradient",
        "bandit_thompson": f"{_BANDITS}:BanditThompson",
        "rllib": "policylab.agents.rllib.agent:RllibAgent",
    },
)

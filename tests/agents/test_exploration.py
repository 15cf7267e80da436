"""Exploration: the frequencies of choices, ties, draws, and the probabilities and expectations they imply."""

import math

import numpy as np
import pytest

from policylab.agents.exploration import (
    EpsilonGreedy,
    Greedy,
    Softmax,
    Ucb,
    among_best,
    choice_probability,
    choose,
    expected_value,
)
from policylab.agents.tabular.core import Size, make_core
from policylab.agents.tabular.q_learning import QLearningSettings
from policylab.seeding import generator, generator_state

ROW = [1.0, 3.0, 3.0, 0.0]
DRAWS = 20_000


def core_of(exploration, *, row=ROW, seed=0):
    settings = QLearningSettings(exploration=exploration)
    core = make_core(settings, Size(1, len(row), 1, 100), budget_steps=100, rng=generator(seed, "agent"))
    core.q[0] = row
    return core


def frequencies(core):
    chosen = np.bincount([choose(core, 0, 0) for _ in range(DRAWS)], minlength=core.n_actions)
    return chosen / DRAWS


def assert_near(measured, expected):
    """Each frequency within five standard errors of its probability."""
    expected = np.asarray(expected)
    error = 5 * np.sqrt(np.maximum(expected * (1 - expected), 1 / DRAWS) / DRAWS)
    assert (np.abs(measured - expected) <= error).all(), (measured, expected)


@pytest.mark.parametrize(
    ("exploration", "expected"),
    [
        (Greedy(), [0.0, 0.5, 0.5, 0.0]),
        (EpsilonGreedy(epsilon=0.2), [0.05, 0.45, 0.45, 0.05]),
        (EpsilonGreedy(epsilon=0.0), [0.0, 0.5, 0.5, 0.0]),
        (EpsilonGreedy(epsilon=1.0), [0.25] * 4),
        (Softmax(temperature=2.0), np.exp(np.array(ROW) / 2) / np.exp(np.array(ROW) / 2).sum()),
    ],
)
def test_choices_follow_the_stated_probabilities(exploration, expected):
    core = core_of(exploration)
    assert_near(frequencies(core), expected)
    if exploration.kind != "greedy":
        assert [choice_probability(core, 0, action, 0) for action in range(4)] == pytest.approx(list(expected))
    assert expected_value(core, 0, 0) == pytest.approx(float(np.dot(expected, ROW)))


def test_ties_are_broken_at_random_and_only_ties_draw():
    rng = generator(0, "agent")
    before = generator_state(rng)
    assert among_best([0.0, 2.0, 1.0], rng) == 1
    assert (generator_state(rng) == before).all()
    chosen = np.bincount([among_best([1.0, 0.0, 1.0, 1.0], rng) for _ in range(DRAWS)], minlength=4) / DRAWS
    assert_near(chosen, [1 / 3, 0, 1 / 3, 1 / 3])


def test_ucb_tries_every_action_first_and_then_the_highest_bound():
    core = core_of(Ucb(c=2.0), row=[0.0, 5.0, 0.0, 0.0])
    assert sorted(choose(core, 0, 0) for _ in range(4)) == [0, 1, 2, 3]
    assert choose(core, 0, 0) == 1
    core.choices[0] = [1, 1000, 1, 2]
    width = 2.0 * math.sqrt(math.log(1004))  # 5.26 on the actions tried once, more than 5 + 0.17
    assert width > 5.0 + width / math.sqrt(1000)
    assert choose(core, 0, 0) in (0, 2)
    assert core.choices.sum() == 1005


def test_ucb_expects_what_it_would_choose():
    core = core_of(Ucb(c=0.0))
    core.choices[0] = 1
    assert expected_value(core, 0, 0) == pytest.approx(3.0)


def test_epsilon_by_visits_falls_with_the_visits_of_the_state():
    core = core_of(EpsilonGreedy(epsilon={"kind": "inverse_visits"}), row=[1.0, 0.0])
    chosen = [choose(core, 0, 0) for _ in range(10_000)]
    assert core.choices[0].sum() == 10_000
    # the n-th visit explores with probability 1/n and half of it is the other action: H(10,000) / 2 = 4.9
    assert 0 < sum(chosen) < 20


def test_softmax_of_huge_values_does_not_overflow():
    core = core_of(Softmax(temperature=1e-3), row=[1e6, 1e6 - 1, -1e9])
    assert choose(core, 0, 0) == 0
    assert expected_value(core, 0, 0) == pytest.approx(1e6)

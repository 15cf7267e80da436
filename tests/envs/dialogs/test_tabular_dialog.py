"""The reduced slot-filling dialog: closed forms, a simulation of what is hidden, and hand-made strategies."""

import math

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.dialogs.tabular_dialog import Slot, TabularSlotFillingEnv
from policylab.envs.enumeration import table_of
from policylab.envs.planners import evaluate_policy, finite_horizon
from policylab.errors import EnvironmentRuleError

EMPTY, FILLED, CONFIRMED = Slot


def strategy(env: TabularSlotFillingEnv, *, confirming: bool) -> np.ndarray:
    """Ask for what is empty, confirm what is filled (if asked to), submit: the action of each state."""
    actions = np.zeros(len(env.P), dtype=int)
    for state in range(env.end):
        _, slots = env.place(state)
        if EMPTY in slots:
            actions[state] = slots.index(EMPTY)
        elif confirming and FILLED in slots:
            actions[state] = env.n_slots + slots.index(FILLED)
        else:
            actions[state] = 2 * env.n_slots
    return actions


def worth(env: TabularSlotFillingEnv, actions: np.ndarray) -> float:
    return float(evaluate_policy(table_of(env), actions, discount=1.0, horizon=env.max_turns)[0])


def best(env: TabularSlotFillingEnv) -> float:
    return float(finite_horizon(table_of(env), horizon=env.max_turns).values[0, 0])


@pytest.mark.parametrize(("word_error", "yes_no_error"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.05), (0.45, 0.2)])
def test_ask_confirm_submit_in_closed_form(word_error: float, yes_no_error: float) -> None:
    """The rounds of asking and confirming until n times "yes" was heard are negative binomial."""
    n, limit = 3, 20
    env = TabularSlotFillingEnv(word_error_rate=word_error, yes_no_error_rate=yes_no_error, max_turns=limit)
    right = 1 - word_error
    yes = right * (1 - yes_no_error) + word_error * yes_no_error
    success = (right * (1 - yes_no_error) / yes) ** n
    value, submitted = 0.0, 0.0
    for rounds in range(n, (limit - 1) // 2 + 1):
        chance = math.comb(rounds - 1, n - 1) * yes**n * (1 - yes) ** (rounds - n)
        value += chance * (-2 * rounds + success * 2 * limit - (1 - success) * limit)
        submitted += chance
    value += (1 - submitted) * (-(limit - 1) - limit)
    assert worth(env, strategy(env, confirming=True)) == pytest.approx(value, abs=1e-10)


def test_asking_and_submitting_in_closed_form() -> None:
    env = TabularSlotFillingEnv(word_error_rate=0.25)
    expected = -3 + 0.75**3 * 40 - (1 - 0.75**3) * 20
    assert worth(env, strategy(env, confirming=False)) == pytest.approx(expected)


def test_confirming_pays_when_words_are_misheard_and_not_otherwise() -> None:
    clear, noisy = TabularSlotFillingEnv(word_error_rate=0.01), TabularSlotFillingEnv(word_error_rate=0.3)
    assert worth(clear, strategy(clear, confirming=False)) > worth(clear, strategy(clear, confirming=True))
    assert worth(noisy, strategy(noisy, confirming=True)) > worth(noisy, strategy(noisy, confirming=False)) + 10
    assert best(clear) == pytest.approx(worth(clear, strategy(clear, confirming=False)))


@pytest.mark.parametrize("word_error", [0.0, 0.1, 0.3, 0.5])
def test_no_hand_made_strategy_beats_the_optimum(word_error: float) -> None:
    env = TabularSlotFillingEnv(word_error_rate=word_error)
    for confirming in (True, False):
        assert worth(env, strategy(env, confirming=confirming)) <= best(env) + 1e-9


def test_when_time_runs_short_the_optimum_submits_unconfirmed() -> None:
    env = TabularSlotFillingEnv(word_error_rate=0.3)
    plan = finite_horizon(table_of(env), horizon=env.max_turns)
    last = env.max_turns - 1
    state = env.state(last, (CONFIRMED, CONFIRMED, FILLED))
    assert plan.policy[last, state] == 2 * env.n_slots
    assert plan.policy[2, env.state(2, (CONFIRMED, CONFIRMED, FILLED))] == env.n_slots + 2
    assert worth(env, strategy(env, confirming=True)) < best(env) - 0.01


def test_the_table_is_that_of_hidden_values() -> None:
    """Simulate which slots really hold the right value: successes under ask, confirm, submit agree."""
    env = TabularSlotFillingEnv(n_slots=2, word_error_rate=0.4, yes_no_error_rate=0.1)
    rng, returns = np.random.default_rng(1), []
    for _ in range(4000):
        slots, right, total = [EMPTY, EMPTY], [False, False], 0.0
        for turn in range(env.max_turns):
            if CONFIRMED == slots[0] == slots[1]:
                total += 40.0 if all(right) else -20.0
                break
            if turn == env.max_turns - 1:
                total -= 20.0
                break
            total -= 1.0
            if EMPTY in slots:
                i = slots.index(EMPTY)
                slots[i], right[i] = FILLED, rng.random() >= 0.4
            else:
                i = slots.index(FILLED)
                yes = right[i] != (rng.random() < 0.1)
                slots[i] = CONFIRMED if yes else EMPTY
        returns.append(total)
    expected = worth(env, strategy(env, confirming=True))
    assert np.mean(returns) == pytest.approx(expected, abs=4.5 * np.std(returns) / math.sqrt(len(returns)))


def test_states_are_numbered_as_stated() -> None:
    env = TabularSlotFillingEnv()
    assert all(env.state(*env.place(state)) == state for state in range(env.end))
    assert env.state(2, (EMPTY, FILLED, CONFIRMED)) == 2 * 27 + 0 * 9 + 1 * 3 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_slots": 6}, "`n_slots` must be from 1 to 5, got 6"),
        ({"max_turns": 0}, "`max_turns` must be from 1 to 100, got 0"),
        ({"word_error_rate": 1.2}, "`word_error_rate` must be a probability between 0 and 1, got 1.2"),
        ({"yes_no_error_rate": 0.7}, "`yes_no_error_rate` must be at most 0.5, got 0.7"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/SlotFilling-v0", **arguments)


def test_the_text_tells_the_slots() -> None:
    env = TabularSlotFillingEnv(word_error_rate=0.0, yes_no_error_rate=0.0, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "turn 0: empty, empty, empty\n"
    env.step(1)
    env.step(4)
    assert env.render() == "(confirm slot 2)\nturn 2: empty, confirmed, empty\n"
    env.step(6)
    assert env.render() == "(submit)\nover\n"

"""The voicemail dialog against exact fractions over all answers there can be."""

import itertools
from fractions import Fraction
from functools import cache

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.dialogs.voicemail import ASK, DELETE, SAVE, VoicemailEnv
from policylab.envs.enumeration import table_of
from policylab.envs.planners import evaluate_policy, finite_horizon
from policylab.errors import EnvironmentRuleError

ERROR = Fraction(3, 10)


def best_by_histories(*, prior: Fraction = Fraction(1, 2), max_turns: int = 10) -> Fraction:
    """The optimum by recursion over whole answer histories and the joint probability of history and intent."""

    @cache
    def best(history: tuple[bool, ...]) -> Fraction:
        """Largest expected reward times the probability of the history (so that nothing is ever divided)."""
        joint = {}
        for intent, chance in ((True, prior), (False, 1 - prior)):
            for answer in history:
                chance *= 1 - ERROR if answer == intent else ERROR
            joint[intent] = chance
        weight = sum(joint.values(), Fraction(0))
        act = max(10 * joint[True] - 100 * joint[False], 10 * joint[False] - 100 * joint[True])
        asked = -weight
        if len(history) + 1 < max_turns:
            asked += best((*history, True)) + best((*history, False))
        return max(act, asked)

    return best(())


def optimum(**kwargs: float) -> float:
    env = gym.make("policylab/Voicemail-v0", **kwargs)
    return float(env.unwrapped.initial_state_distrib @ finite_horizon(table_of(env), horizon=100).values[0])


def test_the_optimum_is_that_of_all_answer_histories() -> None:
    assert optimum() == pytest.approx(float(best_by_histories()), abs=1e-12)
    assert optimum(prior=0.8, max_turns=6) == pytest.approx(
        float(best_by_histories(prior=Fraction(4, 5), max_turns=6)), abs=1e-12
    )


@pytest.mark.parametrize("lead", [1, 2, 4])
def test_asking_until_one_answer_leads_is_worth_what_all_answers_say(lead: int) -> None:
    """The hidden intent is "save", by symmetry: add up every string of answers of ten turns."""
    value = Fraction(0)
    for answers in itertools.product((True, False), repeat=9):
        chance = Fraction(1)
        for answer in answers:
            chance *= 1 - ERROR if answer else ERROR
        ahead, reward = 0, Fraction(0)
        for answer in (*answers, None):  # the tenth question is the last turn
            if abs(ahead) >= lead:
                reward += 10 if ahead > 0 else -100
                break
            reward -= 1
            ahead += 0 if answer is None else 1 if answer else -1
        value += chance * reward
    env = VoicemailEnv()
    policy = [SAVE if at[1] >= lead else DELETE if at[1] <= -lead else ASK for at in (*env.turns, (0, 0))]
    values = evaluate_policy(table_of(gym.make("policylab/Voicemail-v0")), np.array(policy), discount=1.0)
    assert values[0] == pytest.approx(float(value), abs=1e-12)


def test_beliefs_follow_bayes_rule() -> None:
    env = VoicemailEnv(prior=0.6)
    for turn, lead in env.turns:
        saves, deletes = (turn + lead) // 2, (turn - lead) // 2
        odds = Fraction(6, 4) * ((1 - ERROR) / ERROR) ** (saves - deletes)
        assert env.belief(env.state(turn, lead)) == pytest.approx(float(odds / (1 + odds)))


def test_the_belief_process_is_that_of_a_caller_with_a_hidden_intent() -> None:
    """Simulate the hidden intent: frequencies of (turn, lead) and of success agree with the table's."""
    env, rng, n = VoicemailEnv(), np.random.default_rng(0), 20_000
    wants_save = rng.random(n) < env.prior
    answers = np.where(rng.random((n, 3)) < env.error_rate, ~wants_save[:, None], wants_save[:, None])
    leads = np.where(answers, 1, -1).sum(axis=1)
    reached = np.eye(env.end + 1)[0]
    for _ in range(3):
        onward = np.zeros_like(reached)
        for state in np.flatnonzero(reached):
            for p, after, _, _ in env.P[int(state)][ASK]:
                onward[after] += reached[state] * p
        reached = onward
    for lead in (-3, -1, 1, 3):
        p = reached[env.state(3, lead)]
        assert (leads == lead).mean() == pytest.approx(p, abs=4.5 * np.sqrt(p / n))
        b = env.belief(env.state(3, lead))
        there = wants_save[leads == lead]
        assert there.mean() == pytest.approx(b, abs=4.5 * np.sqrt(b * (1 - b) / there.size))


def test_sure_callers_are_served_at_once() -> None:
    assert optimum(prior=1.0) == 10.0
    assert optimum(error_rate=0.0) == 9.0
    assert optimum(error_rate=0.5, wrong_reward=-10.0) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"error_rate": 0.6}, "`error_rate` must be at most 0.5, beyond which answers mislead, got 0.6"),
        ({"prior": 2}, "`prior` must be a probability between 0 and 1, got 2"),
        ({"max_turns": 0}, "`max_turns` must be from 1 to 100, got 0"),
        ({"right_reward": float("inf")}, "`right_reward` must be a finite number, got inf"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/Voicemail-v0", **arguments)


def test_the_text_shows_lead_and_belief() -> None:
    env = VoicemailEnv(error_rate=0.0, prior=1.0, render_mode="ansi")
    env.reset(seed=0)
    env.step(ASK)
    assert env.render() == "turn 1: 'save' leads by +1, belief 1.000\n"
    env.step(SAVE)
    assert env.render() == "over (save)\n"

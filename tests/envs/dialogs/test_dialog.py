"""The dialog: its knowledge base, the user's agenda, the noise, and strategies from end to end."""

import math
from collections import Counter
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.baselines import Rule
from policylab.envs.dialogs.dialog import CLOSE, OFFER, DialogEnv, DialogReading, ask, confirm, tell
from policylab.envs.dialogs.dialog_domain import (
    ANY,
    CONSTRAINTS,
    N_VALUES,
    REQUESTS,
    SLOTS,
    Act,
    Restaurant,
    Speech,
    restaurants,
)
from policylab.envs.dialogs.dialog_rules import confirm_all, trusting
from policylab.envs.dialogs.dialog_user import AgendaUser, Goal, drawn_goal, heard
from policylab.errors import EnvironmentRuleError

FOOD, AREA, PRICE, STARS, TERRACE = range(5)
PHONE, ADDRESS, HOURS = range(3)
PLACE = Restaurant("here", (1, 2, 0, 1, 0))
OTHER = Restaurant("there", (1, 3, 0, 1, 0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def user(*, requests: tuple[int, ...] = (PHONE, HOURS), talkative: float = 0.0) -> AgendaUser:
    """Someone who wants Thai food in the east and does not care about the rest."""
    goal = Goal({FOOD: 1, AREA: 2}, requests)
    return AgendaUser(goal, talkative=talkative, rng=np.random.default_rng(1))


def test_the_knowledge_base_is_varied_and_fixed() -> None:
    places = restaurants(60)
    assert restaurants(60) == places
    assert restaurants(10) == places[:10]
    for slot, size in enumerate(N_VALUES):
        counts = Counter(place.values[slot] for place in places)
        assert sorted(counts) == list(range(size))
    assert len({place.values for place in places}) > 50
    assert len({place.name for place in places}) == 60


def test_goals_can_be_met_and_vary(rng: np.random.Generator) -> None:
    places = restaurants(60)
    goals = [drawn_goal(places, rng=rng) for _ in range(300)]
    assert all(any(goal.fits(place) for place in places) for goal in goals)
    assert {len(goal.constraints) for goal in goals} == {2, 3, 4, 5}
    assert {len(goal.requests) for goal in goals} == {1, 2, 3}


def test_the_user_volunteers_what_is_on_top_of_the_agenda(rng: np.random.Generator) -> None:
    chatty = user(talkative=1.0)
    assert {speech.act for speech in chatty.agenda} == {Act.THANKS, Act.REQUEST, Act.INFORM}
    said = chatty.opening(rng=rng)
    assert {(speech.slot, speech.value) for speech in said} == {(FOOD, 1), (AREA, 2)}
    assert [speech.act for speech in chatty.agenda] == [Act.THANKS, Act.REQUEST, Act.REQUEST]


def test_an_answer_leaves_the_agenda(rng: np.random.Generator) -> None:
    quiet = user()
    assert quiet.asked(AREA, rng=rng) == [Speech(Act.INFORM, AREA, 2)]
    assert Speech(Act.INFORM, AREA, 2) not in quiet.agenda
    assert quiet.asked(STARS, rng=rng) == [Speech(Act.INFORM, STARS, ANY)]
    assert quiet.asked(AREA, rng=rng) == [Speech(Act.INFORM, AREA, 2)]  # patient: says it again


def test_a_wrong_confirmation_is_corrected() -> None:
    assert user().confirming(FOOD, 1) == [Speech(Act.AFFIRM)]
    assert user().confirming(FOOD, 3) == [Speech(Act.NEGATE), Speech(Act.INFORM, FOOD, 1)]
    assert user().confirming(PRICE, ANY) == [Speech(Act.AFFIRM)]
    assert user().confirming(PRICE, None) == [Speech(Act.NEGATE)]


def test_a_bad_offer_is_refused_by_what_it_breaks(rng: np.random.Generator) -> None:
    someone = user()
    assert someone.offered(OTHER, rng=rng) == [Speech(Act.NEGATE), Speech(Act.INFORM, AREA, 2)]
    assert someone.accepted is None
    refusal = someone.offered(None, rng=rng)
    assert [speech.act for speech in refusal] == [Act.NEGATE, Act.INFORM]


def test_a_good_offer_leads_to_the_requests_and_to_thanks(rng: np.random.Generator) -> None:
    someone = user()
    assert someone.told(PHONE) == [Speech(Act.NEGATE)]  # about what?
    assert someone.offered(PLACE, rng=rng) == [Speech(Act.REQUEST, PHONE)]
    assert someone.told(ADDRESS) == [Speech(Act.REQUEST, PHONE)]  # not what was asked
    assert not someone.satisfied
    assert someone.told(PHONE) == [Speech(Act.REQUEST, HOURS)]
    assert someone.told(HOURS) == [Speech(Act.THANKS)]
    assert someone.satisfied


def test_answers_about_another_restaurant_are_void(rng: np.random.Generator) -> None:
    someone = user(requests=(PHONE,))
    someone.offered(PLACE, rng=rng)
    someone.told(PHONE)
    twin = Restaurant("twin", PLACE.values)
    assert someone.offered(twin, rng=rng) == [Speech(Act.REQUEST, PHONE)]
    assert not someone.satisfied


def test_a_clear_line_is_heard_as_said(rng: np.random.Generator) -> None:
    said = [Speech(Act.NEGATE), Speech(Act.INFORM, FOOD, 1), Speech(Act.REQUEST, HOURS)]
    assert heard(said, intent_error=0.0, slot_error=0.0, rng=rng) == said


@pytest.mark.parametrize(
    "said", [Speech(Act.INFORM, PRICE, 1), Speech(Act.INFORM, PRICE, ANY), Speech(Act.REQUEST, PHONE)]
)
def test_errors_come_as_often_as_stated_and_evenly(said: Speech, rng: np.random.Generator) -> None:
    n = 6000
    got = Counter(heard([said], intent_error=0.2, slot_error=0.3, rng=rng)[0] for _ in range(n))

    def close(count: int, p: float) -> bool:
        return abs(count - n * p) <= 4.5 * math.sqrt(n * p * (1 - p))

    assert close(got[said], 0.8 * 0.7)
    lost = {speech: count for speech, count in got.items() if speech.act is not said.act}
    assert {speech.act for speech in lost} == set(Act) - {said.act}
    assert all(speech.slot is None for speech in lost)
    assert all(close(count, 0.2 / 4) for count in lost.values())
    wrong = [count for speech, count in got.items() if speech.act is said.act and speech != said]
    expected = len(REQUESTS) - 1 if said.act is Act.REQUEST else N_VALUES[PRICE] - (said.value != ANY)
    assert len(wrong) == expected
    assert all(close(count, 0.8 * 0.3 / expected) for count in wrong)


def clear_env(**kwargs: float) -> DialogEnv:
    env = DialogEnv(intent_error=0.0, slot_error=0.0, talkative=0.0, **kwargs)
    env.reset(seed=0)
    assert env.user is not None
    env.user = AgendaUser(Goal({FOOD: 5, PRICE: 0}, (ADDRESS,)), talkative=0.0, rng=np.random.default_rng(0))
    env.knowledge.values[:] = [None] * len(SLOTS)
    return env


def test_a_dialog_from_end_to_end() -> None:
    env = clear_env()
    total = 0.0
    for action in (ask(FOOD), ask(PRICE), confirm(PRICE), ask(AREA), OFFER, tell(ADDRESS), CLOSE):
        observation, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert truncated is False
    assert (total, terminated, info["success"]) == (-6.0 + 40.0, True, True)
    reading = DialogReading.of(observation)
    assert reading.filled.tolist() == [1, 1, 1, 0, 0]
    assert reading.confirmed.tolist() == [0, 0, 1, 0, 0]
    assert reading.requested.tolist() == reading.answered.tolist() == [0, 1, 0]
    assert reading.offered.tolist() == [1]
    assert reading.last_action.argmax() == CLOSE
    assert reading.turn == pytest.approx(7 / 20)


@pytest.mark.parametrize(
    "actions",
    [
        (CLOSE,),
        (ask(FOOD), OFFER, CLOSE),  # offered, but the request is open
        (ask(FOOD), ask(PRICE), OFFER, tell(PHONE), CLOSE),  # answered something else
        (tell(ADDRESS), ask(FOOD), ask(PRICE), OFFER, CLOSE),  # told before there was an offer
    ],
)
def test_closing_too_early_fails(actions: tuple[int, ...]) -> None:
    env = clear_env()
    rewards = [env.step(action)[1] for action in actions]
    assert rewards[-1] == -20.0
    assert rewards[:-1] == [-1.0] * (len(actions) - 1)


def test_the_user_hangs_up() -> None:
    env = clear_env(max_turns=5)
    results = [env.step(ask(FOOD)) for _ in range(5)]
    assert [result[1] for result in results] == [-1.0] * 4 + [-5.0]
    assert [result[2] for result in results] == [False] * 4 + [True]


def test_a_misheard_yes_does_not_confirm_what_was_never_said() -> None:
    env = clear_env()
    env.step(confirm(STARS))
    assert DialogReading.of(env._observation()).confirmed.sum() == 0


def test_matches_count_the_knowledge_base() -> None:
    env = clear_env()
    for values, expected in (((None,) * 5, 3), ((5, ANY, None, None, None), 3), (env.places[0].values, None)):
        env.knowledge.values[:] = values
        n = sum(place.fits(values) for place in env.places)
        bins = 0 if n == 0 else 1 if n == 1 else 2 if n <= 5 else 3
        assert DialogReading.of(env._observation()).matches.argmax() == bins
        assert expected in (None, bins)


def test_a_goal_never_shows_before_it_is_said() -> None:
    """Two users with the same opening look the same: nothing hidden leaks into the observation."""
    first, second = clear_env(), clear_env()
    second.user = AgendaUser(Goal({FOOD: 5, STARS: 2, AREA: 1}, (PHONE, HOURS)), talkative=0.0, rng=first.np_random)
    for action in (ask(FOOD), confirm(FOOD)):
        here, there = first.step(action)[0], second.step(action)[0]
        assert np.array_equal(here, there)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slot_error": -0.1}, "`slot_error` must be a probability between 0 and 1, got -0.1"),
        ({"n_restaurants": 0}, "`n_restaurants` must be from 1 to 1000, got 0"),
        ({"max_turns": 101}, "`max_turns` must be from 1 to 100, got 101"),
    ],
)
def test_a_broken_rule_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        gym.make("policylab/Dialog-v0", **arguments)


def test_text_and_picture_show_what_was_said_and_heard() -> None:
    env = DialogEnv(intent_error=1.0, slot_error=0.0, render_mode="ansi")
    env.reset(seed=3)
    env.step(ask(FOOD))
    lines = env.render().splitlines()
    assert lines[0] == "system: which food?"
    assert lines[1].startswith("user: food: ")
    assert "(heard: " in lines[1]
    pictured = DialogEnv(render_mode="rgb_array")
    pictured.reset(seed=3)
    before = pictured.render()
    for _ in range(8):
        pictured.step(ask(FOOD))
    assert before.shape == pictured.render().shape == (400, 640, 3)
    assert (before != pictured.render()).any()


def test_every_value_has_a_name() -> None:
    assert all(len(set(values)) == len(values) > 1 for values in CONSTRAINTS.values())


def episodes(make: Callable[[gym.Env], Rule], *, n: int, **kwargs: float) -> tuple[float, float]:
    """Mean return and share of successes of a strategy over ``n`` dialogs."""
    env = DialogEnv(**kwargs)
    rule, total, successes = make(env), 0.0, 0
    env.reset(seed=5)
    for _ in range(n):
        observation, _ = env.reset()
        terminated = False
        while not terminated:
            observation, reward, terminated, _, info = env.step(rule.act(observation))
            total += reward
        successes += info["success"]
    return total / n, successes / n


def test_over_a_clear_line_both_strategies_always_succeed_and_trust_is_quicker() -> None:
    trust, success = episodes(trusting, n=200, intent_error=0.0, slot_error=0.0)
    check, checked_success = episodes(confirm_all, n=200, intent_error=0.0, slot_error=0.0)
    assert success == checked_success == 1.0
    assert trust > check + 2.0


def test_over_a_noisy_line_confirming_pays() -> None:
    trust, success = episodes(trusting, n=300, slot_error=0.3)
    check, checked_success = episodes(confirm_all, n=300, slot_error=0.3)
    assert checked_success > success + 0.15
    assert check > trust + 5.0

"""The race: its statistics on numbers worked out by hand, and what it does with a budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from policylab.errors import ConfigError
from policylab.tuning.history import History
from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.race import Race, RaceSettings
from policylab.tuning.schedulers.rungs import Ladder
from policylab.tuning.schedulers.scores import Belief, believe, best_agreement, normal_scores, standing

FULL = 10


def noisy(seed: int, *, n: int = 200, share: float = 0.3, n_seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return curves whose end has a ``share`` of seed noise in its variance, and the true end values."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal(n) * math.sqrt(1 - share)
    luck = rng.standard_normal((n, n_seeds)) * math.sqrt(share)
    growth = 1 - np.exp(-np.arange(1, FULL + 1)[None, :] * rng.uniform(0.2, 1.0, (n, 1)))
    wobble = 0.1 * rng.standard_normal((n, n_seeds, FULL))
    return (true[:, None] + luck)[:, :, None] * growth[:, None, :] + wobble, true


def race(values: np.ndarray, *, budget: int, capacity: int = 1, **chosen: object) -> tuple[Race, History, EventLog]:
    scheduler = Race.make(RaceSettings.model_validate(chosen), Horizon(FULL, budget * FULL, n_seeds=values.shape[1]))
    log = EventLog(None)
    study = landscape_study(LandscapeBackend(values, capacity=capacity), scheduler, log=log)
    study.run()
    return scheduler, study.history, log


# --- statistics


def test_scores_are_the_quantiles_of_midranks() -> None:
    # Conover 1999, section 5.10: the score of rank r among n is Φ^-1(r / (n + 1)); with mid-ranks, (r - 1/2) / n.
    assert normal_scores([30.0, 10.0, 20.0]) == pytest.approx(stats.norm.ppf([5 / 6, 1 / 6, 3 / 6]))
    assert normal_scores([-math.inf, 1.0, 1.0]) == pytest.approx(stats.norm.ppf([1 / 6, 4 / 6, 4 / 6]))
    assert len(normal_scores([])) == 0


def test_a_result_is_the_mean_of_the_tail() -> None:
    curve = dict(enumerate([0.0, 6.0, 3.0, 8.0, 4.0, 9.0, 5.0, 8.0, 6.0, 10.0], start=1))
    assert standing(curve, until=10, window=0.3) == (8 + 6 + 10) / 3
    assert standing(curve, until=5, window=0.3) == (8 + 4) / 2
    assert standing({10: 7.0}, until=10, window=0.3) == 7.0
    assert standing({3: 7.0}, until=10, window=0.3) == 7.0
    assert standing({9: math.nan, 10: 7.0}, until=10, window=0.3) == -math.inf
    assert standing({1: math.nan, 9: 8.0, 10: 7.0}, until=10, window=0.3) == 7.5


def test_a_run_that_still_climbs_stands_where_it_is() -> None:
    taxi = [-277.49, -200, -200, -198.57, -186.51, -138.26, -48.96, -0.95, 6.57, 7.93]  # late, but to the optimum
    assert standing(dict(enumerate(taxi, start=1)), until=10, window=0.3) == 7.93
    with_a_fall = dict(enumerate([0.0, 10.0, 4.0, 9.0, 10.0, 10.0, 9.0, 9.0, 10.0, 30.0], start=1))
    # Falls of 6, 1 and 1 in nine changes: a variance of 38 / 9, and three standard errors of the mean of three 5.03.
    assert standing(with_a_fall, until=10, window=0.3) == 30.0
    with_a_fall[10] = 16.9
    assert standing(with_a_fall, until=10, window=0.3) == pytest.approx((9 + 10 + 16.9) / 3)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20))
def test_what_does_not_climb_is_averaged_and_what_only_climbs_is_not(values: list[int]) -> None:
    curve = {at: float(value) for at, value in enumerate(values, start=1)}
    tail = [value for at, value in curve.items() if at > len(values) * 0.7]
    found = standing(curve, until=len(values), window=0.3)
    assert min(tail) <= found <= max(tail)
    if values == sorted(values):
        assert found == tail[-1]
    elif sum(tail) >= len(tail) * tail[-1]:
        assert found == pytest.approx(sum(tail) / len(tail))


def test_agreement_corrects_for_the_choice_of_the_promoted() -> None:
    rng = np.random.default_rng(0)
    low = rng.standard_normal(4000)
    high = 0.6 * low + 0.8 * rng.standard_normal(4000)  # correlation .6 among all
    kept = np.argsort(-low)[:1000]
    plain = np.corrcoef(low[kept], high[kept])[0, 1]
    assert plain < 0.4
    found = best_agreement(low[kept], high[kept], spread=float(low.std()))
    assert 0.55 < found < 0.75  # an upper bound of .6
    assert best_agreement(low[:60], -high[:60], spread=float(low[:60].std())) < 0
    few, many = (best_agreement(low[:n], low[::-1][:n], spread=float(low[:n].std())) for n in (8, 800))
    assert few > 0.3 > many, "little evidence does not condemn a rung"
    assert best_agreement(np.zeros(9), high[:9], spread=1.0) == 1.0, "what cannot be judged is kept"


def test_beliefs_shrink_towards_the_common_mean_and_sharpen_with_seeds() -> None:
    belief = believe([[9.0], [5.0, 5.0, 6.0, 5.0], [1.0, 2.0, 1.0]])
    assert belief.variance[0] > belief.variance[2] > belief.variance[1]
    assert belief.mean[0] > belief.mean[1] > belief.mean[2]
    raw = normal_scores([9.0, 5.0, 5.0, 6.0, 5.0, 1.0, 2.0, 1.0])
    assert abs(belief.mean[0]) < abs(raw[0])
    chances = belief.chance_to_beat(0)
    assert chances[0] == 0.5
    assert chances[1] > chances[2]


def test_the_knowledge_gradient_is_the_expected_rise_of_the_best_mean() -> None:
    belief = Belief(mean=np.array([1.0, 0.6, -1.0]), variance=np.array([0.5, 0.8, 0.3]), noise=0.7)
    rng = np.random.default_rng(0)
    gain = belief.knowledge_gradient(np.zeros(3))
    for i in range(3):
        truth = rng.normal(belief.mean[i], math.sqrt(belief.variance[i]), 400_000)
        seen = truth + rng.normal(0, math.sqrt(belief.noise), len(truth))
        weight = belief.variance[i] / (belief.variance[i] + belief.noise)
        updated = belief.mean[i] + weight * (seen - belief.mean[i])
        others = max(mean for j, mean in enumerate(belief.mean) if j != i)
        assert gain[i] == pytest.approx(np.maximum(updated, others).mean() - belief.mean.max(), abs=2e-3)
    assert (belief.knowledge_gradient(np.ones(3)) < gain).all(), "a seed under way leaves less to learn"


def test_a_ladder_prices_what_is_missing() -> None:
    ladder = Ladder(levels=(2, 5, 10), eta=2)
    assert ladder.price(8) == 8 * 2 + 4 * 3 + 2 * 5
    assert ladder.price(8, sent=(8, 4, 0)) == 2 * 5
    assert ladder.price(9, sent=(8, 4, 2)) == 2 + 3 + 5
    assert ladder.price(8, base=1) == 8 * 5 + 4 * 5
    assert ladder.width(ladder.price(8)) == 8


# --- behaviour


def test_the_search_halves_and_the_race_adds_paired_seeds() -> None:
    values, _ = noisy(0)
    _, history, log = race(values, budget=64)
    search = sum(event["event"] == "report" and event["seed"] == 0 for event in log.events)
    seeds = sum(event["event"] == "report" and event["seed"] > 0 for event in log.events)
    assert 0.65 * 64 * FULL <= search <= 0.80 * 64 * FULL
    assert search + seeds == history.spent <= 64 * FULL
    sent = [sum(trial.runs[0].resource >= level for trial in history.trials.values()) for level in (2, 5, 10)]
    assert sent[1] >= math.ceil(sent[0] / 2)
    assert sent[2] >= math.ceil(sent[0] / 4)
    for trial in history.trials.values():
        assert sorted(trial.runs) == list(range(len(trial.runs))), "seeds come in one order: rivals share them"
    reported = [event["seed"] for event in log.events if event["event"] == "report"]
    first_race = next(i for i, seed in enumerate(reported) if seed > 0)
    assert first_race >= search - FULL, "the race follows the search; a rest of the budget may extend it"


def test_the_race_beats_one_seed_at_equal_cost() -> None:
    """Paired over 30 landscapes: the true value of the winner is higher than random search's on one seed."""
    differences = []
    for seed in range(30):
        values, true = noisy(seed)
        scheduler, history, _ = race(values, budget=40)
        best = scheduler.best(history)
        assert best is not None
        differences.append(true[best] - true[values[:40, 0, -1].argmax()])
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(len(differences))
    assert mean - 2.05 * error > 0  # t with 29 degrees of freedom, 95 %


def test_a_lucky_seed_is_found_out() -> None:
    values = np.tile(np.linspace(0.1, 1.0, FULL), (20, 5, 1)) * np.linspace(1, 2, 20)[:, None, None]
    values[4, 0] = values.max() * np.linspace(0.5, 1.5, FULL)  # the best of all on the seed of the search, only there
    scheduler, history, _ = race(values, budget=30)
    assert len(history.trials[4].runs) > 1
    assert scheduler.best(history) not in (None, 4)


def test_who_has_no_chance_is_dropped_and_told_why() -> None:
    values, _ = noisy(3, share=0.02)
    _, history, log = race(values, budget=64, drop=0.05)
    stops = [event for event in log.events if event["event"] == "stop"]
    assert stops
    assert all("chance to beat trial" in event["reason"] for event in stops)
    for stop in stops:
        later = [event for event in log.events[log.events.index(stop) :] if event.get("trial") == stop["trial"]]
        assert {event["event"] for event in later} == {"stop"}, "nothing more is spent on it"
    assert all(history.trials[stop["trial"]].runs[0].resource == FULL for stop in stops)


def test_the_guard_raises_a_rung_that_ranks_unlike_the_next() -> None:
    values, _ = noisy(1)
    misleading = values.copy()
    misleading[:, :, :4] *= -1

    def starts(curves: np.ndarray, **chosen: float) -> list[int]:
        _, _, log = race(curves, budget=60, **chosen)
        return [event["until"] for event in log.events if event["event"] == "start"]

    assert set(starts(values)) == {2}
    assert set(starts(misleading)) == {2, 5}
    assert set(starts(misleading, guard=-1.0)) == {2}
    _, history, _ = race(misleading, budget=60)
    assert history.spent <= 60 * FULL


def test_the_winner_is_not_the_luckiest() -> None:
    """Two seeds of .8 say more than one of 1 among scores that scatter as much between seeds as these."""
    values = np.zeros((6, 2, FULL))
    values[:, 0] = np.array([1.0, 0.8, 0.3, 0.2, 0.1, 0.0])[:, None]
    values[:, 1] = np.array([0.0, 0.8, 0.3, 0.2, 0.1, 0.0])[:, None]
    scheduler, history, _ = race(values, budget=12, rungs=(1.0,))
    assert scheduler.best(history) == 1


def test_one_tuning_seed_leaves_nothing_to_race() -> None:
    values, _ = noisy(2, n_seeds=1)
    scheduler, history, _ = race(values, budget=20)
    assert history.spent > 19 * FULL
    assert scheduler.best(history) is not None


def test_a_number_of_trials_is_a_budget_too() -> None:
    values, _ = noisy(5)
    scheduler = Race.make(RaceSettings(), Horizon(FULL, None, n_seeds=5, n_trials=40))
    study = landscape_study(LandscapeBackend(values[:40], capacity=3), scheduler)
    study.run()
    assert len(study.history.trials) == 40
    assert any(len(trial.runs) > 1 for trial in study.history.trials.values())


def test_a_race_without_a_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set limits\.steps, cost or trials"):
        Race.make(RaceSettings(), Horizon(FULL, None, n_seeds=5))


@pytest.mark.parametrize("rungs", [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 1.0), (0.5, 0.5, 1.0), (0.5, 1.0, 2.0)])
def test_rungs_that_do_not_rise_to_the_end_are_refused(rungs: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="rungs must rise from above 0 to 1"):
        RaceSettings(rungs=rungs)


def test_parallel_races_use_their_places() -> None:
    """With eight places the search goes on while a rung waits; only its last results are waited for."""
    values, _ = noisy(6)
    busy: list[int] = []
    scheduler = Race.make(RaceSettings(), Horizon(FULL, 64 * FULL, n_seeds=5))
    study = landscape_study(LandscapeBackend(values, capacity=8), scheduler)
    study.run(observe=lambda history: busy.append(history.running))
    assert np.mean(busy) > 5

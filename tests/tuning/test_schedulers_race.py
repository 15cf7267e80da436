"""The race: its statistics on numbers worked out by hand, and what it does with a budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from policylab.errors import ConfigError
from policylab.tuning.history import History
from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.beliefs import COMMON_SHARES, SEED_SHARES, believe
from policylab.tuning.schedulers.race import Race, RaceSettings
from policylab.tuning.schedulers.rungs import Ladder
from policylab.tuning.schedulers.scores import OUTLIER, best_agreement, normal_scores, standing, value_scores

FULL = 10


def noisy(seed: int, *, share: float = 0.3, common: float = 0.0, n_seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return curves of 200 configurations, and their true end values.

    Args:
        seed: of the generator.
        share: of the seeds in the variance at the end.
        common: share of that which a seed does to all alike.
        n_seeds: seeds of each.
    """
    rng, n = np.random.default_rng(seed), 200
    true = rng.standard_normal(n) * math.sqrt(1 - share)
    luck = rng.standard_normal((n, n_seeds)) * math.sqrt(share * (1 - common))
    luck += rng.standard_normal(n_seeds) * math.sqrt(share * common) if common else 0.0
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


def test_values_of_a_normal_sample_are_scored_in_standard_deviations() -> None:
    sample = np.random.default_rng(0).normal(5.0, 2.0, (2000, 3))
    scores = value_scores(sample)
    assert scores == pytest.approx((sample.clip(-1.0, 11.0) - 5.0) / 2.0, abs=0.2)
    assert value_scores(-3.0 * sample) == pytest.approx(-scores), "no unit and no direction is special"


def test_no_outlier_decides_how_values_are_scored() -> None:
    results = np.random.default_rng(1).standard_normal((20, 2))
    scores = value_scores(results)
    for outlier in (-1e9, -math.inf):
        results[7, 0] = outlier
        changed = value_scores(results)
        assert changed[7, 0] == pytest.approx(-OUTLIER, abs=0.5)
        others = np.arange(20) != 7
        assert changed[others] == pytest.approx(scores[others], abs=0.5)
    assert not value_scores(np.full((3, 2), -math.inf)).any(), "nobody is told apart"
    assert np.isnan(value_scores(np.array([[1.0, math.nan], [2.0, 3.0]]))[0, 1]), "what was not seen stays so"


def test_a_seed_that_is_easy_for_all_hides_no_difference() -> None:
    own, few = np.linspace(0.0, 1.0, 40), [20, 25, 30]
    results = np.full((40, 2), np.nan)
    results[:, 0], results[few, 1] = own, own[few] + 50.0
    scores = value_scores(results)[few]
    assert scores[:, 1] - scores[0, 1] == pytest.approx(scores[:, 0] - scores[0, 0])
    assert scores[0, 1] > OUTLIER + 10, "the seed itself is not drawn in"


def test_first_against_second_place_is_as_little_as_it_is() -> None:
    """A hair behind on one seed and far ahead on another; by ranks alone the two would be as good as each other."""
    none = np.nan
    results = np.array([[0.90, 0.36], [0.89, 0.64], [0.40, none], [0.30, none], [0.20, none]])
    belief = believe(results)
    assert belief.mean.argmax() == 1
    assert belief.chance_to_beat(0)[1] > 0.6


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
    with_a_fall = dict(enumerate([0.0, 10.0, 9.0, 9.0, 12.0, 6.0, 9.0, 9.0, 10.0, 30.0], start=1))
    # A fall of 6 in the five changes of the second half: a variance of 36 / 5, and three standard errors of the mean of
    # three 6.57.
    assert standing(with_a_fall, until=10, window=0.3) == 30.0
    with_a_fall[10] = 19.0
    assert standing(with_a_fall, until=10, window=0.3) == pytest.approx((9 + 10 + 19) / 3)


def test_noise_of_the_exploration_does_not_hold_a_learner_back() -> None:
    """Two runs of Taxi to one end: the earlier learner stood below the later one, for falls long ago."""
    early = [-400.0, -210.0, -390.0, -220.0, -150.0, -60.0, 2.0, 6.5, 7.9, 7.9]
    late = [-400.0, -390.0, -380.0, -300.0, -200.0, -150.0, -90.0, 0.4, 5.8, 7.9]
    stood = [standing(dict(enumerate(curve, start=1)), until=10, window=0.3) for curve in (early, late)]
    assert stood == [pytest.approx(7.9), pytest.approx(7.9)]
    # With few reports all of them tell the noise: a last one far above the others may be a lucky policy.
    lake = {2000: 0.152, 4000: 0.601, 5000: 0.113, 6000: 0.246, 8000: 0.246, 10_000: 0.740}
    assert standing(lake, until=10_000, window=0.3) == pytest.approx((0.246 + 0.740) / 2)


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


GAPS = np.array([[9.0, 8.0, np.nan], [5.0, np.nan, np.nan], [1.0, 7.0, 6.0], [4.0, np.nan, 2.0], [6.0, 3.0, np.nan]])
"""Results of five finalists on three seeds, not all of them seen."""


def mixed_models(results: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray, float]]:
    """Return (likelihood, means, covariance, scale) of each pair of shares by the textbook's dense matrices.

    Generalised least squares of one mean; Searle, Casella and McCulloch, Variance Components, 1992, chapter 7.
    """
    who, seed = np.nonzero(~np.isnan(results))
    scores, n = value_scores(results)[who, seed], len(who)
    found = []
    for share in SEED_SHARES:
        for common, weight in COMMON_SHARES.items():
            between, alike, rest = 1 - share, share * common, share * (1 - common)
            covariance = between * (who[:, None] == who) + alike * (seed[:, None] == seed) + rest * np.eye(n)
            inverse, ones = np.linalg.inv(covariance), np.ones(n)
            information = ones @ inverse @ ones
            residual = scores - (ones @ inverse @ scores) / information
            square = residual @ inverse @ residual
            with_true = between * (np.arange(len(results))[:, None] == who)
            lost = with_true @ inverse @ ones
            posterior = between * np.eye(len(results)) - with_true @ inverse @ with_true.T
            posterior += np.outer(lost, lost) / information
            likelihood = math.log(weight) - np.linalg.slogdet(covariance)[1] / 2 - math.log(information) / 2
            likelihood -= (n - 1) / 2 * math.log(square)
            found.append((likelihood, with_true @ inverse @ residual, posterior, square / (n - 1)))
    return found


def test_beliefs_are_those_of_the_mixed_model_averaged_over_the_variances() -> None:
    models = mixed_models(GAPS)
    likelihoods = np.array([model[0] for model in models])
    chances = np.exp(likelihoods - likelihoods.max()) / np.exp(likelihoods - likelihoods.max()).sum()
    belief = believe(GAPS)
    assert belief.chances == pytest.approx(chances)
    assert belief.mean == pytest.approx(sum(c * model[1] for c, model in zip(chances, models, strict=True)))
    beats = np.zeros(len(GAPS))
    for chance, (_, mean, covariance, scale) in zip(chances, models, strict=True):
        for i in (0, 1, 3, 4):
            variance = covariance[i, i] + covariance[2, 2] - 2 * covariance[i, 2]
            freedom = int((~np.isnan(GAPS)).sum()) - 1
            beats[i] += chance * stats.t.cdf((mean[i] - mean[2]) / math.sqrt(variance * scale), freedom)
    beats[2] = 0.5
    assert belief.chance_to_beat(2) == pytest.approx(beats)


def test_beliefs_shrink_towards_the_common_mean() -> None:
    results = np.array([[9.0] + [np.nan] * 3, [5.0, 5.0, 6.0, 5.0], [1.0, 2.0, 1.0, np.nan]])
    belief = believe(results)
    assert belief.mean[0] > belief.mean[1] > belief.mean[2]
    assert abs(belief.mean[0]) < abs(value_scores(results)[0, 0])
    chances = belief.chance_to_beat(0)
    assert chances[0] == 0.5
    assert chances[1] > chances[2]


def test_an_easy_seed_is_no_merit() -> None:
    """Two finalists saw an easy seed that does the same to all; compared seed by seed the third is better."""
    results = np.array(
        [
            [0.0, 10.0, np.nan],
            [0.1, 10.1, np.nan],
            [1.0, np.nan, np.nan],
            [-1.0, 9.0, np.nan],
            [-2.0, 8.0, np.nan],
            [-3.0, 7.0, np.nan],
        ]
    )
    belief = believe(results)
    assert belief.mean.argmax() == 2
    assert belief.chance_to_beat(2)[0] < 0.3


def test_the_knowledge_gradient_is_the_expected_rise_of_the_best_mean() -> None:
    """By simulation with the dense model: the next result of each is drawn, the beliefs are worked out anew."""
    results = np.array([[2.0, 1.5, np.nan], [1.4, np.nan, np.nan]])  # two: then the best rival is the only one
    belief = believe(results)
    pending = np.zeros(results.shape, dtype=bool)
    gain = belief.knowledge_gradient(pending)
    models, rng, expected = mixed_models(results), np.random.default_rng(0), np.zeros(2)
    pairs = [(share, common) for share in SEED_SHARES for common in COMMON_SHARES]
    who, seed = np.nonzero(~np.isnan(results))
    for chance, model, (share, common) in zip(belief.chances, models, pairs, strict=True):
        for i, next_seed in enumerate((2, 1)):
            everyone, seeds = np.append(who, i), np.append(seed, next_seed)
            known = (1 - share) * (everyone[:, None] == everyone) + share * common * (seeds[:, None] == seeds)
            known += share * (1 - common) * np.eye(len(everyone)) + 1e6  # a flat prior of the mean
            true = (1 - share) * (np.arange(2)[:, None] == everyone)
            weights = np.linalg.solve(known[:-1, :-1], known[:-1, -1])
            slope = (true[:, -1] - true[:, :-1] @ weights) / (known[-1, -1] - known[-1, :-1] @ weights)
            deviation = math.sqrt((known[-1, -1] - known[-1, :-1] @ weights) * model[3])
            updated = model[1] + slope * rng.normal(0, deviation, (200_000, 1))
            expected[i] += chance * (updated.max(axis=1).mean() - model[1].max())
    assert gain == pytest.approx(expected, abs=2e-3)
    pending[1, 1] = True
    assert belief.knowledge_gradient(pending)[1] < gain[1], "a seed under way leaves less to learn"
    assert belief.knowledge_gradient(np.ones_like(pending)).tolist() == [0.0, 0.0], "no seed is left"


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


@pytest.mark.parametrize(("share", "common"), [(0.1, 0.0), (0.3, 0.0), (0.6, 0.0), (0.8, 0.0), (0.8, 0.9)])
def test_hardly_anyone_is_dropped_who_is_better(share: float, common: float) -> None:
    """Over 40 studies with seeds of any weight: at a nominal 1 % few of those dropped were better than the leader."""
    n_wrong, n_dropped, n_best = 0, 0, 0
    for seed in range(40):
        values, true = noisy(seed, share=share, common=common)
        _, history, log = race(values, budget=64)
        ends = [trial.id for trial in history.trials.values() if trial.runs[0].resource == FULL]
        best = max(ends, key=lambda trial: true[trial])
        for event in log.events:
            if event["event"] == "stop":
                leader = int(event["reason"].rsplit(" ", 1)[1])
                n_dropped += 1
                n_wrong += bool(true[event["trial"]] > true[leader])
                n_best += event["trial"] == best
    assert n_wrong <= 3 + 0.02 * n_dropped
    assert n_best <= 3


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


def test_the_guard_raises_a_rung_that_ranks_unlike_the_end() -> None:
    values, _ = noisy(1)
    misleading, late = values.copy(), values.copy()
    misleading[:, :, :4] *= -1
    late[:, :, :9] *= -1

    def starts(curves: np.ndarray, **chosen: float) -> list[int]:
        _, _, log = race(curves, budget=60, **chosen)
        return [event["until"] for event in log.events if event["event"] == "start"]

    assert set(starts(values)) == {2}
    assert set(starts(misleading)) == {2, 5}
    assert set(starts(misleading, guard=-1.0)) == {2}
    assert set(starts(late, window=0.1)) == {2, 10}, "both rungs agree with each other, but not with the end"
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
    with pytest.raises(ConfigError, match=r"set limits\.steps, cost, trials or wall_clock_s"):
        Race.make(RaceSettings(), Horizon(FULL, None, n_seeds=5))


def timed(
    values: np.ndarray, *, budget: int | None, trainings: int, capacity: int
) -> tuple[Race, History, list[dict[str, Any]]]:
    """Return a race that a clock ends when ``trainings`` have been paid for."""
    horizon = Horizon(FULL, None if budget is None else budget * FULL, n_seeds=5, timed=True)
    scheduler, log = Race.make(RaceSettings(), horizon), EventLog(None)
    backend = LandscapeBackend(values, capacity=capacity)
    limits = Limits(wall_clock_s=trainings * FULL / capacity)
    study = landscape_study(backend, scheduler, log=log, limits=limits)
    assert study.run(clock=lambda: backend.now).startswith("limits.wall_clock_s")
    return scheduler, study.history, log.events


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("budget", [None, 500])
def test_a_clock_is_planned_with_as_steps_are(capacity: int, budget: int | None) -> None:
    """It searches and races as with the steps that the time pays for, whatever else the limits allow."""
    values, true = noisy(3)
    by_steps, expected, _ = race(values, budget=30, capacity=capacity)
    scheduler, history, events = timed(values, budget=budget, trainings=30, capacity=capacity)
    assert len(history.trials) == pytest.approx(len(expected.trials), rel=0.15)
    raced = [trial for trial in history.trials.values() if len(trial.runs) > 1]
    assert len(raced) >= 3
    assert true[scheduler.best(history)] == true[by_steps.best(expected)]
    paces = [event["steps"] for event in events if event["event"] == "pace"]
    assert 1 <= len(paces) <= 5
    assert paces[-1] == pytest.approx(30 * FULL, rel=0.1)


def test_what_is_decided_by_a_clock_follows_from_the_log() -> None:
    values, _ = noisy(3)
    _, _, whole = timed(values, budget=None, trainings=30, capacity=1)
    (pace,) = [place for place, event in enumerate(whole) if event["event"] == "pace"]
    log = EventLog(None)
    log.extend(whole[: pace + 1])
    scheduler = Race.make(RaceSettings(), Horizon(FULL, None, n_seeds=5, timed=True))
    landscape_study(LandscapeBackend(values), scheduler, log=log).run()  # its own clock tells nothing
    ended = next(place for place, event in enumerate(whole) if event["event"] == "complete")
    assert log.events[:ended] == whole[:ended]


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

"""The default strategy on generated landscapes, in a reduced form of ``benchmarks/landscapes.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from policylab.envs import evaluate_policy, table_of, value_iteration
from policylab.envs.planning_evaluation import start_value
from policylab.tuning.landscape import Landscape, quantiles

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "landscapes.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("landscapes_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def frozen_lake(benchmark: ModuleType) -> Landscape:
    found: Landscape = benchmark.generate(["frozen_lake"], n=128, n_seeds=10, share=0.3)["frozen_lake"]
    return found


def test_generated_values_are_exact_and_below_the_optimum(benchmark: ModuleType, frozen_lake: Landscape) -> None:
    mdp = table_of(benchmark.make_env(benchmark.EnvSettings(id="FrozenLake-v1")))
    optimum = start_value(mdp, value_iteration(mdp, discount=0.99).values)
    assert frozen_lake.values.max() <= optimum + 1e-9
    assert frozen_lake.values.max() > 0.9 * optimum, "some configuration learns the task"
    policies = np.random.default_rng(0).integers(mdp.n_actions, size=(5, mdp.n_states))
    exact = [start_value(mdp, evaluate_policy(mdp, policy, discount=0.99)) for policy in policies]
    assert benchmark.exact_values(mdp, policies) == pytest.approx(exact)


def test_landscapes_are_the_same_every_time(benchmark: ModuleType) -> None:
    first, second = (benchmark.generate(["dyna_maze"], n=4, n_seeds=2, share=0.1)["dyna_maze"] for _ in range(2))
    assert (first.values == second.values).all()
    assert (first.points == second.points).all()


def test_the_default_strategy_beats_random_search_on_one_seed(benchmark: ModuleType, frozen_lake: Landscape) -> None:
    """Paired over 40 repeats at the cost of 24 full trainings."""
    race, random = (
        benchmark.measure({"frozen_lake": frozen_lake}, name, budgets=[24], n_repeats=40, workers=1)[0, :, 0]
        for name in ("race", "random_1")
    )
    gain = random - race
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    assert gain.mean() - 2.02 * error > 0  # t with 39 degrees of freedom, 95 %


def test_every_strategy_runs_and_pays_for_what_it_sees(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    landscape = Landscape(rng.standard_normal((40, 6, 10)).cumsum(axis=2), rng.random((40, 2)))
    for strategy in benchmark.STRATEGIES:
        if strategy.startswith("optuna"):
            continue  # peers: optional here
        found = benchmark.regrets("made up", landscape, strategy=strategy, budgets=[6, 12], repeat=0)
        assert np.isfinite(found).all()


def test_a_measurement_goes_on_where_it_was_ended(benchmark: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {"made up": Landscape(rng.standard_normal((40, 6, 10)).cumsum(axis=2), rng.random((40, 2)))}
    asked = {"strategy": "random_1", "budgets": [6, 12], "workers": 1}
    whole = benchmark.measure(table, n_repeats=3, **asked)
    file = tmp_path / "results.csv"
    benchmark.measure(table, n_repeats=2, results=benchmark.Results(file), **asked)
    lines = file.read_text().splitlines()
    assert (benchmark.measure(table, n_repeats=3, results=benchmark.Results(file), **asked) == whole).all()
    assert file.read_text().splitlines()[:4] == lines
    assert len(file.read_text().splitlines()) == 6


def test_intervals_cover_the_mean_as_often_as_they_say(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(1)
    covered = [
        abs(mean - 0.5) <= half
        for _ in range(400)
        for mean, half in zip(*benchmark.interval(rng.normal(0.5, 1.0, (3, 60, 1))), strict=True)
    ]
    assert 0.91 < np.mean(covered) < 0.98


def test_regret_is_nothing_at_the_best_and_one_at_the_median() -> None:
    values = np.repeat(np.arange(5.0), 6).reshape(5, 2, 3)
    landscape = Landscape(values, quantiles({"x": np.arange(5.0)}))
    assert [landscape.regret(row, [0, 1]) for row in range(5)] == [2.0, 1.5, 1.0, 0.5, 0.0]


def test_a_file_is_read_as_its_description_says(benchmark: ModuleType, tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    values[1, 2, 3] = np.nan
    np.savez(
        tmp_path / "t.npz",
        brax_a=values - 3000,
        brax_a__budget=np.arange(1.0, 5.0),
        brax_a__rate=np.array([0.1, 0.2]),
        other=values,
        other__rate=np.array([0.2, 0.1]),
        minigrid_unlock_dqn=values,
    )
    found = benchmark.load(tmp_path / "t.npz")
    assert sorted(found) == ["brax_a", "other"]
    assert found["other"].values[1, 2, 3] == 0.0
    assert found["brax_a"].values.min() == -2000.0
    assert found["brax_a"].points.tolist() == [[0.25], [0.75]]

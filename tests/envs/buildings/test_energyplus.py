"""EnergyPlus: a real building under real weather, as an environment."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from policylab.envs.baselines import Rule
from policylab.envs.buildings.energyplus import EnergyPlusEnv, always_comfortable, discomfort, night_setback, power
from policylab.envs.buildings.energyplus_run import Reading, Simulation, with_run_period
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError, RunError

dataset = pytest.importorskip("pyenergyplus.dataset", reason="needs pip install 'policylab[energyplus]'")
DENVER = Path(dataset.weather_files["usa_co_denver"])
NEUTRAL = np.zeros(2, dtype=np.float32)


def test_a_day_has_its_quarter_hours_and_ends_by_truncation() -> None:
    env = EnergyPlusEnv(days=1, first_day=[7, 2])
    observation, info = env.reset(seed=0)
    assert info["first_day"] == "07-02"
    ends, hours = [], []
    while True:
        observation, reward, terminated, truncated, info = env.step(NEUTRAL)
        assert env.observation_space.contains(observation)
        assert reward == pytest.approx(-0.5e-4 * info["power_w"] - 0.5 * info["discomfort_c"])
        ends.append((terminated, truncated))
        hours.append((np.arctan2(observation[0], observation[1]) * 12 / np.pi) % 24)
        if truncated:
            break
    assert ends == [(False, False)] * 94 + [(False, True)]
    assert np.allclose(np.diff(hours[:-1]), 0.25, atol=1e-3)
    with pytest.raises(EnvironmentRuleError, match=r"call reset\(\) before step\(\)"):
        env.step(NEUTRAL)


def test_setpoints_reach_the_building() -> None:
    temperatures = {}
    for name, action in (("cool", [-1.0, -1.0]), ("free", [-1.0, 1.0])):
        env = EnergyPlusEnv(days=1, first_day=[7, 15])
        env.reset(seed=0)
        for _ in range(60):  # until 15 h
            observation, *_ = env.step(np.array(action, dtype=np.float32))
        temperatures[name] = observation[7:12]
        env.close()
    assert np.abs(temperatures["cool"] - 22.5).max() < 0.3
    assert (temperatures["free"] > temperatures["cool"] + 1.0).all()  # in every zone, Perimeter_ZN_2 too


def test_nothing_is_left_running_or_lying_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = threading.active_count()
    env = EnergyPlusEnv(days=1, first_day=[1, 10])
    env.reset(seed=0)
    env.step(NEUTRAL)
    env.reset()  # in the middle of an episode
    assert threading.active_count() == before + 1
    env.close()
    env.close()
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_days_are_drawn_by_the_seed() -> None:
    env = EnergyPlusEnv(days=3, weather=["usa_co_denver", "usa_fl_miami"])
    first, again = ([env.reset(seed=seed)[1] for seed in (1, 2)] for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    env.close()


def test_a_copy_starts_afresh() -> None:
    env = EnergyPlusEnv(days=1, first_day=[3, 1])
    observation, _ = env.reset(seed=0)
    copy = pickle.loads(pickle.dumps(env))
    assert np.array_equal(copy.reset(seed=0)[0], observation)
    copy.close()
    env.close()


def test_one_run_period_takes_the_place_of_all() -> None:
    model = Path(dataset.ashrae_models["office_small"]).read_text()
    assert len([line for line in model.splitlines() if line.strip().lower() == "runperiod,"]) == 3
    changed = with_run_period(model, first_day=(2, 3), last_day=(2, 9))
    assert [line.strip() for line in changed.splitlines() if line.strip().lower() == "runperiod,"] == ["RunPeriod,"]
    assert "2, 3, ," in changed
    assert "RunPeriodControl" in changed  # another class of object, which stays


def test_a_model_that_energyplus_refuses_is_one_sentence() -> None:
    simulation = Simulation("Nonsense,\n  thing;\n", weather=DENVER, zones=["Core_ZN"])
    with pytest.raises(RunError, match=r"EnergyPlus stopped: .*Nonsense") as caught:
        simulation.start()
    assert "\n" not in str(caught.value)
    simulation.close()


def test_a_zone_that_is_not_there_is_named() -> None:
    model = with_run_period(Path(dataset.ashrae_models["office_small"]).read_text(), first_day=(1, 1), last_day=(1, 1))
    simulation = Simulation(model, weather=DENVER, zones=["Cellar"])
    with pytest.raises(RunError, match="the building model has no variable 'Zone Mean Air Temperature' of Cellar"):
        simulation.start()
    simulation.close()


def reading(**changes: object) -> Reading:
    full = Reading(10.0, 0.0, (19.0, 21.0, 25.0, 30.0, 10.0), (1.0, 2.0, 1.0, 0.0, 0.0), 9e5, 12.0, 20, 3)
    return full._replace(**changes)


def test_discomfort_counts_where_people_are() -> None:
    assert discomfort(reading()) == pytest.approx((1.0 + 0.0 + 1.5) / 3)  # winter: 20 to 23.5
    assert discomfort(reading(day_of_year=200)) == pytest.approx((4.0 + 2.0 + 0.0) / 3)  # summer: 23 to 26
    assert discomfort(reading(people=(0.0,) * 5)) == 0.0
    assert power(reading()) == pytest.approx(1000.0)  # 0.9 MJ in a quarter of an hour


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"days": 0}, "`days` must be from 1 to 365, got 0"),
        ({"days": 2, "first_day": [12, 31]}, "must end within the year"),
        ({"first_day": [2, 30]}, r"`first_day` must be \[month, day\], got \[2, 30\]"),
        ({"weather": "usa_co_denvr"}, "did you mean 'usa_co_denver'"),
        ({"weather": []}, "`weather` must name at least one weather file"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        EnergyPlusEnv(**arguments)


@pytest.mark.slow
def test_two_buildings_live_side_by_side() -> None:
    alone = EnergyPlusEnv(days=1, first_day=[7, 2])
    alone.reset(seed=0)
    expected = [alone.step(NEUTRAL)[0] for _ in range(5)]
    alone.close()
    here, there = EnergyPlusEnv(days=1, first_day=[7, 2]), EnergyPlusEnv(days=1, first_day=[1, 2])
    here.reset(seed=0)
    there.reset(seed=0)
    seen = []
    for _ in range(5):
        seen.append(here.step(NEUTRAL)[0])
        there.step(NEUTRAL)
    assert np.array_equal(seen, expected)
    here.close()
    there.close()


@pytest.mark.slow
def test_a_setback_at_night_saves_energy_and_both_rules_beat_doing_nothing() -> None:
    chosen = EnvSettings(id="policylab/EnergyPlusOffice-v0", kwargs={"days": 1, "first_day": [7, 16]})
    env = make_env(chosen)
    energy, returns = [], []
    for rule in (always_comfortable(env), night_setback(env), Rule(lambda observation: np.array([-1, 1], np.float32))):
        observation, _ = env.reset(seed=0)
        used = earned = 0.0
        truncated = False
        while not truncated:
            observation, reward, _, truncated, info = env.step(rule.act(observation))
            used, earned = used + info["power_w"], earned + float(reward)
        energy.append(used)
        returns.append(earned)
    assert energy[0] > 1.1 * energy[1] > energy[2]
    assert min(returns[:2]) > returns[2] + 10

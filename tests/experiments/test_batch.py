"""Runs advanced together leave what runs executed one by one leave; one that fails or is stopped harms no other."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import threading
import time

import gymnasium as gym
import pytest

from policylab.experiments.batch import Batch
from policylab.experiments.execute import execute
from policylab.experiments.rundir import RunDirectory, create_run, open_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig
from policylab.launchers import State, open_launcher

EXPERIMENT = {
    "name": "together",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99},
    "budget": {"steps": 2_000},
    "seeds": {"tune": 2, "confirm": 0},
    "evaluation": {"marks": 8},
    "launcher": {"kind": "inline", "workers": 2},
    "tracking": {"kind": "none"},
}
SEARCH = {
    "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.05, "high": 0.5}}},
    "searcher": {"kind": "random"},
    "scheduler": {"kind": "fixed"},
    "limits": {"trials": 6},
    "storage": "none",
}
CASES = {
    "exact": {},
    "another table": {"env": {"id": "CliffWalking-v1", "max_episode_steps": 200}, "agent": {"kind": "sarsa_lambda"}},
    "rollout": {"evaluation": {"kind": "rollout", "marks": 3, "episodes": 2, "final_episodes": 3}},
    "plain": {"agent": {"kind": "prioritized_sweeping"}, "budget": {"steps": 300}},
    "bandit": {
        "env": {"id": "policylab/Bandit-v0"},
        "agent": {"kind": "bandit_ucb1"},
        "evaluation": {"kind": "online"},
    },
    "plateau": {"budget": {"steps": 2_000, "early_stopping": {"patience": 2, "min_delta": 2.0}}},
}


class Breaks(gym.Env):
    """Raises after a while."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        self.steps += 1
        if self.steps > 600:
            raise ZeroDivisionError("the environment broke")
        return 0, 0.0, False, False, {}


gym.register("tests/Breaks-v0", Breaks, max_episode_steps=50)


class Waits(gym.Env):
    """Waits in its steps until it may go on."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)
    entered, go_on = threading.Event(), threading.Event()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        self.entered.set()
        assert self.go_on.wait(60.0)
        return 0, 0.0, False, False, {}


gym.register("tests/Waits-v0", Waits, max_episode_steps=50)


class OneThread(gym.Env):
    """Raises where two threads make or step environments at the same time."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)
    entered = threading.Lock()

    @contextlib.contextmanager
    def alone(self):
        if not self.entered.acquire(blocking=False):
            raise RuntimeError("two threads at the same time")
        try:
            time.sleep(0.0002)  # lets another thread come in
            yield
        finally:
            self.entered.release()

    def __init__(self):
        with self.alone():
            pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        with self.alone():
            return 0, 0.0, False, False, {}


gym.register("tests/OneThread-v0", OneThread, max_episode_steps=5)


def folders(tmp_path, **changes):
    config = ExperimentConfig.model_validate({**EXPERIMENT, **changes})
    return create_run(config, parent=tmp_path).folders(config.specs(("tune",)))


def content(folder):
    """Every byte of a run, but not what it cost, nor the hidden file that a kill leaves of a write it cut off."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "cost.jsonl" and not path.name.startswith(".")
    }


def carry_out(batch, runs):
    """Execute ``runs`` to their ends; return the last event of each."""
    batch.add(runs)
    last = {}
    while not all(run in last and last[run]["event"] != "progress" for run in runs):
        last.update(batch.advance(lambda: ()))
    return last


@pytest.fixture
def batch(tmp_path):
    with Batch(n_threads=2, log=tmp_path / "log") as made:
        yield made


def test_a_batch_leaves_the_bytes_of_single_runs(batch, tmp_path):
    runs = [folder for changes in CASES.values() for folder in folders(tmp_path / "together", **changes)]
    alone = [folder for changes in CASES.values() for folder in folders(tmp_path / "alone", **changes)]
    assert {event["event"] for event in carry_out(batch, runs).values()} == {"finished"}
    for run, other in zip(runs, alone, strict=True):
        execute(other)
        assert content(run) == content(other)
        costs = [json.loads(line) for line in (run / "cost.jsonl").read_text().splitlines()]
        assert sum(cost["steps"] for cost in costs) == json.loads((run / "result.json").read_text())["steps"]


def test_runs_that_join_on_the_way_leave_the_same_bytes(batch, tmp_path):
    runs, alone = (folders(tmp_path / name, seeds={"tune": 12, "confirm": 0}) for name in ("joining", "alone"))
    last = {}
    for first in range(0, len(runs), 3):
        batch.add(runs[first : first + 3])
        last.update(batch.advance(lambda: ()))
    while not all(last.get(run, {"event": "progress"})["event"] == "finished" for run in runs):
        last.update(batch.advance(lambda: ()))
    for run, other in zip(runs, alone, strict=True):
        execute(other)
        assert content(run) == content(other)


def test_a_stopped_run_has_saved_and_goes_on_anywhere(batch, tmp_path):
    longer = {"budget": {"steps": 3_000_000}, "evaluation": {"marks": 300}}
    first, second, third = (folders(tmp_path / name, **longer)[0] for name in ("first", "second", "third"))
    batch.add([first, second])
    last = {}
    while len(last) < 2:
        last.update(batch.advance(lambda: ()))
    while not all(event["event"] == "stopped" for event in last.values()):
        last.update(batch.advance(lambda: (first, second)))
    assert not (first / "result.json").exists()
    assert list((first / "checkpoints").glob("0*"))
    assert carry_out(batch, [first])[first] == {"event": "finished"}
    execute(second)
    execute(third)
    assert content(first) == content(second) == content(third)


def test_a_run_stopped_while_it_waits_for_its_turn_saves_without_training(tmp_path):
    longer = {"budget": {"steps": 300_000_000}, "evaluation": {"marks": 10_000}}
    waiting = folders(tmp_path / "waiting", **longer)[0]
    busy = folders(tmp_path / "busy", env={"id": "tests/Waits-v0"}, evaluation={"kind": "rollout", "episodes": 1})[0]
    last = {}
    with Batch(n_threads=1, log=tmp_path / "log") as batch:
        batch.add([waiting])
        while not last:
            last.update(batch.advance(lambda: ()))
        batch.add([busy])
        assert Waits.entered.wait(60.0)
        before = (waiting / "reports.jsonl").read_bytes()
        batch.advance(lambda: (waiting, busy))
        Waits.go_on.set()
        while last.get(waiting) != {"event": "stopped"}:
            last.update(batch.advance(lambda: (waiting, busy)))
    assert (waiting / "reports.jsonl").read_bytes() == before
    assert list((waiting / "checkpoints").glob("0*"))


def test_a_run_that_fails_takes_no_other_with_it(batch, tmp_path):
    good = folders(tmp_path / "good")
    broken = folders(tmp_path / "broken", env={"id": "tests/Breaks-v0"}, evaluation={"kind": "rollout", "episodes": 1})
    damaged = folders(tmp_path / "damaged")[0]
    (damaged / "spec.json").write_text("{")
    last = carry_out(batch, [*broken, damaged, *good])
    assert all(last[run] == {"event": "finished"} for run in good)
    assert last[broken[0]]["error"] == "ZeroDivisionError: the environment broke"
    assert 'raise ZeroDivisionError("the environment broke")' in last[broken[0]]["traceback"]
    assert "spec.json" in last[damaged]["error"]
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()
    assert (broken[0] / "reports.jsonl").exists(), "what came before the failure is kept"


def test_environments_need_not_bear_threads(batch, tmp_path):
    valued = {"kind": "rollout", "marks": 4, "episodes": 2, "final_episodes": 10}
    changes = {"env": {"id": "tests/OneThread-v0"}, "evaluation": valued, "budget": {"steps": 40}}
    runs = folders(tmp_path, **changes, seeds={"tune": 6, "confirm": 0})
    assert {event["event"] for event in carry_out(batch, runs).values()} == {"finished"}


def test_the_launcher_executes_what_is_submitted_and_saves_what_it_is_closed_on(tmp_path):
    short, long = (
        folders(tmp_path / "short"),
        folders(tmp_path / "long", budget={"steps": 10**9}, evaluation={"marks": 10_000}),
    )
    settings = ExperimentConfig.model_validate(EXPERIMENT).launcher
    with open_launcher(settings, n_workers=2, folder=tmp_path) as launcher:
        handles = [launcher.submit(folder) for folder in [*short, *long]]
        launcher.stop(handles[-1])
        deadline = time.monotonic() + 60
        while not all(launcher.poll(handle).state is State.FINISHED for handle in handles[:2]):
            assert time.monotonic() < deadline
            launcher.wait(timeout_s=1.0)
        assert launcher.poll(handles[0]).steps == 2_000
        assert launcher.poll(handles[-1]).state is State.STOPPED
        assert launcher.attach(long[0]) == handles[2]
    assert launcher.poll(handles[2]).state is State.STOPPED
    assert list((long[0] / "checkpoints").glob("0*"))


def study(run: RunDirectory):
    """Everything that determines what a study found: each run's content, and the decisions."""
    events = [json.loads(line) for line in (run.path / "study/events.jsonl").read_text().splitlines()]
    decided = [event for event in events if event["event"] in ("start", "add_seed")]
    runs = {str(path.parent): content(path.parent) for path in sorted(run.path.glob("trials/*/*/spec.json"))}
    return decided, {path.removeprefix(str(run.path)): found for path, found in runs.items()}


INLINE = {**EXPERIMENT, "search": SEARCH, "budget": {"steps": 100_000}}
LOCAL = {**INLINE, "launcher": {"kind": "local", "workers": 2}, "search": {**SEARCH, "parallel": 256}}


@pytest.mark.parametrize(
    ("killed", "whole", "within_s"), [(INLINE, LOCAL, 1.0), (LOCAL, INLINE, 3.0)], ids=["in process", "in processes"]
)
def test_killed_and_resumed_a_study_ends_as_an_uninterrupted_one_elsewhere(tmp_path, killed, whole, within_s):
    run = create_run(ExperimentConfig.model_validate(killed), parent=tmp_path / "killed")
    chance = random.Random(0)
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=drive, args=(run,))
        process.start()
        log = run.path / "study/events.jsonl"
        deadline = time.monotonic() + 60
        while not log.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.join(chance.uniform(0.0, within_s))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    document = drive(open_run(run.path))
    other = create_run(ExperimentConfig.model_validate(whole), parent=tmp_path / "whole")
    expected = drive(other)
    decided, runs = study(run)
    decided_elsewhere, runs_elsewhere = study(other)
    assert decided == decided_elsewhere
    assert list(runs) == list(runs_elsewhere)
    for name, found in runs.items():
        without = {part: data for part, data in found.items() if part != "spec.json"}  # it names the configuration
        assert without == {part: data for part, data in runs_elsewhere[name].items() if part != "spec.json"}
    assert document["selected"] == expected["selected"]

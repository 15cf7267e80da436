"""The pool that launchers share: lost workers, bounded times and retries, and stops that must not be forgotten."""

import threading
import time

import pytest

from policylab.attempts import Attempts, Failure
from policylab.launchers import State
from policylab.launchers.pool import WorkerLost, WorkerPool


class Scripted:
    """A worker in this process that does what the name of the run's folder says."""

    def __init__(self, log, *, broken=False):
        self._log = log
        self._broken = broken
        self._stop = threading.Event()
        self._aborted = threading.Event()

    def start(self):
        self._log.append("start")
        self._aborted.clear()
        if self._broken:
            raise WorkerLost("no place to start")

    def execute(self, folder):
        self._log.append(folder.name)
        yield {"event": "progress", "steps": 7, "value": 0.5}
        kind = folder.name.partition("-")[0]
        if kind == "lost" and self._log.count(folder.name) <= int(folder.name[-1]):
            raise WorkerLost("its node is gone")
        if kind == "defect":
            raise RuntimeError("unexpected")
        if kind == "failing":
            yield {"event": "failed", "error": "ZeroDivisionError: division by zero", "traceback": "line 7"}
            return
        if kind == "mistake":
            yield {"event": "failed", "error": "set agent.discount below 1", "user_error": True}
            return
        if kind == "hangs" and self._log.count(folder.name) <= int(folder.name[-1]):
            assert self._aborted.wait(30)
            raise WorkerLost("it was killed")
        if kind == "stoppable":
            self._stop.wait(30)
            raise WorkerLost("its node is gone while it was saving")
        yield {"event": "finished"}

    def stop(self, folder):
        self._log.append(f"stop {folder.name}")
        self._stop.set()

    def abort(self):
        self._log.append("abort")
        self._aborted.set()
        return "line 8"

    def close(self):
        self._stop.set()

    def kill(self, *, after_s):
        self._log.append(f"kill after {after_s:g}" if after_s == 0 else "kill")


@pytest.fixture
def log():
    return []


@pytest.fixture
def pool(log):
    with WorkerPool(n_workers=1, make_worker=lambda: Scripted(log), attempts=Attempts(retries=2)) as made:
        yield made


def ended(pool, handle):
    deadline = time.monotonic() + 30
    while not pool.poll(handle).state.ended:
        assert time.monotonic() < deadline, pool.poll(handle)
        pool.wait(timeout_s=0.01)
    return pool.poll(handle)


def test_a_lost_run_is_queued_again_ahead_of_the_others(pool, log, tmp_path):
    lost = pool.submit(tmp_path / "lost-2")
    other = pool.submit(tmp_path / "other")
    assert ended(pool, other).state is State.FINISHED
    assert pool.poll(lost).state is State.FINISHED
    assert [name for name in log if name != "start"] == ["lost-2", "lost-2", "lost-2", "other"]


def test_a_run_lost_too_often_fails_and_says_so(pool, log, tmp_path):
    progress = ended(pool, pool.submit(tmp_path / "lost-9"))
    assert progress.state is State.FAILED
    assert progress.error == "failed 3 times; the last time: its node is gone"
    assert log.count("lost-9") == 3


def test_losses_are_counted_anew_when_a_run_is_submitted_again(pool, tmp_path):
    assert ended(pool, pool.submit(tmp_path / "lost-2")).state is State.FINISHED
    assert ended(pool, pool.submit(tmp_path / "lost-4")).state is State.FAILED
    assert ended(pool, pool.submit(tmp_path / "lost-4")).state is State.FINISHED


def test_losses_of_an_earlier_session_count(pool, log, tmp_path):
    progress = ended(pool, pool.submit(tmp_path / "lost-9", n_failed=2))
    assert (progress.error, progress.failures) == ("failed 3 times; the last time: its node is gone", ())
    assert log.count("lost-9") == 1


def test_a_run_that_fails_by_itself_is_not_repeated(pool, log, tmp_path):
    progress = ended(pool, pool.submit(tmp_path / "failing"))
    assert (progress.state, progress.steps) == (State.FAILED, 7)
    assert "ZeroDivisionError" in progress.error
    assert log.count("failing") == 1


def test_one_that_may_be_repeated_is_and_a_users_mistake_never(log, tmp_path):
    repeated = Attempts(retries=1, retry_errors=True)
    with WorkerPool(n_workers=1, make_worker=lambda: Scripted(log), attempts=repeated) as pool:
        progress = ended(pool, pool.submit(tmp_path / "failing"))
        assert ended(pool, pool.submit(tmp_path / "mistake")).error == "set agent.discount below 1"
    assert progress.error == "failed 2 times; the last time: ZeroDivisionError: division by zero"
    assert progress.failures == (Failure("ZeroDivisionError: division by zero", "line 7"),)
    assert (log.count("failing"), log.count("mistake")) == (2, 1)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_that_takes_too_long_is_killed_and_goes_on_if_it_may(log, tmp_path, retries):
    bounded = Attempts(max_runtime_s=0.5, retries=retries)
    with WorkerPool(n_workers=1, make_worker=lambda: Scripted(log), attempts=bounded) as pool:
        hung = pool.submit(tmp_path / "hangs-1")
        other = pool.submit(tmp_path / "other")
        assert ended(pool, other).state is State.FINISHED
        progress = pool.poll(hung)
    why = Failure("ran longer than 0.5 s", "line 8")
    if retries:
        assert (progress.state, progress.failures) == (State.FINISHED, (why,))
    else:
        assert (progress.state, Failure(progress.error, progress.traceback)) == (State.FAILED, why)
    assert log.count("abort") == 1


def test_a_run_that_is_lost_while_it_stops_has_stopped(pool, log, tmp_path):
    handle = pool.submit(tmp_path / "stoppable")
    while pool.poll(handle).steps == 0:
        pool.wait(timeout_s=0.01)
    pool.stop(handle)
    assert ended(pool, handle).state is State.STOPPED
    assert log.count("stoppable") == 1


def test_a_second_ctrl_c_kills_every_worker_without_waiting(log, tmp_path):
    class Interrupted(Scripted):
        """Ctrl-C is pressed again while the first worker is asked to save."""

        def close(self):
            raise KeyboardInterrupt("again")

    pool = WorkerPool(n_workers=2, make_worker=lambda: Interrupted(log), attempts=Attempts())
    handles = [pool.submit(tmp_path / f"stoppable-{number}") for number in range(2)]
    while not all(pool.poll(handle).steps for handle in handles):
        pool.wait(timeout_s=0.01)
    with pytest.raises(KeyboardInterrupt, match="again"), pool:
        raise KeyboardInterrupt
    assert log.count("kill after 0") == 2
    for handle in handles:
        pool.stop(handle)


def test_a_defect_of_a_worker_ends_its_run_and_no_other(pool, tmp_path):
    progress = ended(pool, pool.submit(tmp_path / "defect"))
    assert (progress.state, progress.error) == (State.FAILED, "RuntimeError: unexpected")
    assert ended(pool, pool.submit(tmp_path / "other")).state is State.FINISHED


def test_workers_that_cannot_start_are_tried_again_then_fail_what_waits(log, tmp_path):
    with WorkerPool(n_workers=1, make_worker=lambda: Scripted(log, broken=True), attempts=Attempts(retries=2)) as pool:
        first = pool.submit(tmp_path / "first")
        progress = ended(pool, first)
        assert (progress.state, progress.error) == (State.FAILED, "no place to start")
        assert log == ["start"] * 3
        assert ended(pool, pool.submit(tmp_path / "second")).state is State.FAILED


def test_one_worker_that_cannot_start_leaves_the_runs_to_the_others(log, tmp_path):
    made = []

    def make():
        made.append(Scripted(log, broken=not made))
        return made[-1]

    with WorkerPool(n_workers=2, make_worker=make, attempts=Attempts()) as pool:
        handles = [pool.submit(tmp_path / f"run-{number}") for number in range(6)]
        states = {ended(pool, handle).state for handle in handles[1:]}
        assert states == {State.FINISHED}

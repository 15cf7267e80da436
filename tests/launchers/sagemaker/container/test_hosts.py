"""Jobs of several hosts, each a process with its own address: they meet through Ray, and none is left waiting."""

import json
import os
import re
import signal
import time

import psutil
import pytest

pytest.importorskip("ray")

HEAD, WORKER = "127.0.0.3", "127.0.0.2"  # the head is neither the first by name nor the first listed
GROUPS = {"learner": [HEAD], "rollout": [WORKER]}
LONG = ("budget.steps=20_000_000", "evaluation.marks=10000")


def test_a_worker_without_a_head_names_it(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(), join_timeout_s=1)
    assert hosts[WORKER].start().wait() == 6
    assert hosts[WORKER].failure().startswith(f"the head {HEAD} was not reached within 1 s")
    assert left_over() == ([], [])


def test_a_worker_that_is_stopped_while_it_looks_for_the_head_leaves(job, left_over, spec_of):
    host = job.cluster(GROUPS, spec=spec_of())[WORKER].start().until("looking for the head")
    assert host.signal().wait() == 0
    assert host.failure() is None
    assert left_over() == ([], [])


def test_a_host_that_never_comes_is_named_and_nobody_waits_on(job, left_over, spec_of):
    hosts = job.cluster({**GROUPS, "spare": ["127.0.0.4"]}, spec=spec_of(), join_timeout_s=1)
    hosts[HEAD].start()
    hosts[WORKER].start(POLICYLAB_JOIN_TIMEOUT_S="300")  # the head may be slower to begin than it waits
    assert hosts[HEAD].wait() == 4, hosts[HEAD].text()
    assert hosts[HEAD].failure().startswith("hosts never joined within 1 s: 127.0.0.4")
    assert f"host {HEAD}, group learner" in hosts[HEAD].failure()
    assert hosts[WORKER].wait() == 0, "the head alone decides"
    assert hosts[WORKER].failure() is None
    assert left_over() == ([], [])


@pytest.mark.slow
def test_a_stop_during_the_barrier_is_a_stop(job, left_over, spec_of):
    head = job.cluster(GROUPS, spec=spec_of())[HEAD].start()
    deadline = time.monotonic() + 300
    while not any("raylet" in process.name() for process in job.alive()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert head.signal().wait() == 0
    assert "stopped before the run began" in head.text()
    assert head.failure() is None
    assert left_over() == ([], [])


def test_a_host_of_another_job_is_refused(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(), join_timeout_s=60)
    hosts[HEAD].start()
    assert hosts[WORKER].start(POLICYLAB_JOB_TOKEN="of-quite-another-job").wait() == 2
    assert hosts[WORKER].failure().startswith(f"the head {HEAD} refuses: the token is another job's")
    assert hosts[HEAD].signal().wait() == 0
    assert left_over() == ([], [])


@pytest.mark.slow
def test_a_run_of_two_hosts_one_of_which_is_late(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of())
    hosts[HEAD].start()
    time.sleep(5)
    hosts[WORKER].start()
    assert hosts[HEAD].wait() == 0, hosts[HEAD].text()
    assert hosts[WORKER].wait() == 0, hosts[WORKER].text()
    assert (hosts[HEAD].root / "model" / "manifest.json").exists()
    assert not any((hosts[WORKER].root / "model").iterdir()), "only the head writes"
    assert left_over() == ([], [])


@pytest.mark.slow
def test_a_lost_worker_fails_the_job_after_the_run_has_saved(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(*LONG))
    for host in hosts.values():
        host.start()
    hosts[HEAD].until("[metric] step=2000")
    for process in job.alive(WORKER):
        process.kill()
    assert hosts[HEAD].wait() == 5, hosts[HEAD].text()
    lines = hosts[HEAD].failure().splitlines()
    assert lines[0].startswith(f"worker host lost: {WORKER}: ")
    assert re.match(r"last checkpoint: after [1-9]", lines[3])
    hosts[WORKER].wait()
    assert left_over()[0] == []


@pytest.mark.slow
def test_a_machine_that_falls_silent_is_lost_too(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(*LONG))
    for host in hosts.values():
        host.start()
    hosts[HEAD].until("[metric] step=2000")
    hosts[WORKER].signal(signal.SIGSTOP)
    assert hosts[HEAD].wait() == 5, hosts[HEAD].text()
    assert f"worker host lost: {WORKER}: silent for 3 s" in hosts[HEAD].failure()
    hosts[WORKER].signal(signal.SIGCONT)
    assert hosts[WORKER].wait() == 6, "it missed the end, but not that the head is gone"
    assert left_over() == ([], [])


@pytest.mark.slow
def test_a_lost_head_ends_every_worker(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(*LONG))
    for host in hosts.values():
        host.start()
    hosts[HEAD].until("[metric] step=2000")
    hosts[HEAD].signal(signal.SIGKILL)
    assert hosts[WORKER].wait() == 6
    assert hosts[WORKER].failure().startswith(f"lost the head {HEAD} without a final status: ")
    psutil.wait_procs(job.alive(), timeout=30)  # where a container has a namespace of its own they end with it
    assert left_over()[0] == []


@pytest.mark.slow
def test_sigterm_to_all_saves_and_ends_all(job, left_over, spec_of):
    hosts = job.cluster(GROUPS, spec=spec_of(*LONG))
    for host in hosts.values():
        host.start()
    hosts[HEAD].until("[metric] step=2000")
    for host in hosts.values():
        host.signal()
    assert [host.wait() for host in hosts.values()] == [0, 0]
    assert "; saved" in hosts[HEAD].text()
    assert "Ray stays until the run has saved" in hosts[WORKER].text()
    assert list((job.folder / "checkpoints").glob("*.tar"))
    assert [host.failure() for host in hosts.values()] == [None, None]
    assert left_over() == ([], [])


@pytest.mark.slow
def test_rllib_learns_on_one_host_from_what_another_samples(job, left_over, spec_of, apart):
    hosts = job.cluster(GROUPS, spec=spec_of(text=apart.experiment))
    for host in hosts.values():
        host.start(PYTHONPATH=f"{apart.module.parent}:{os.environ.get('PYTHONPATH', '')}")
    assert hosts[HEAD].wait() == 0, hosts[HEAD].text()
    assert hosts[WORKER].wait() == 0, hosts[WORKER].text()
    assert (hosts[HEAD].root / "model" / "model.onnx").exists()
    actors = json.loads((hosts[HEAD].root / "output" / "data" / "actors.json").read_text())
    assert actors == apart.actors(runner=WORKER, learner=HEAD)
    assert left_over() == ([], [])


@pytest.mark.slow
def test_more_runners_than_the_rollout_group_carries_are_refused(job, left_over, spec_of, apart):
    changes = ("agent.n_env_runners=3", "env.id=CartPole-v1")
    hosts = job.cluster(GROUPS, spec=spec_of(*changes, text=apart.experiment))
    for host in hosts.values():
        host.start()
    assert hosts[HEAD].wait() == 2, hosts[HEAD].text()
    assert "3 env runners need 3 processors, and there are 2 of group_rollout for them" in hosts[HEAD].failure()
    assert hosts[WORKER].wait() == 0
    assert left_over() == ([], [])

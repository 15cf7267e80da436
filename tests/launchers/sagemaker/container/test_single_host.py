"""`policylab container` on one host, as a process: what it leaves for the service, and that nothing else stays."""

import json
import os
import re
import signal
import subprocess
import tarfile

import psutil
import pytest

from policylab.agents.bundle import load_bundle
from policylab.aws.metrics import metric_regex
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot, save_snapshot

SHORT = ("budget.steps=6000", "evaluation.marks=6")
LONG = ("budget.steps=3_000_000", "evaluation.marks=3000")


@pytest.fixture
def restored(job, files_of, tmp_path):
    """Return a function that tells what the job's checkpoints hold."""

    def read():
        assert restore_snapshot(job.folder / "checkpoints", into=tmp_path / "there")
        return files_of(tmp_path / "there")

    return read


def test_a_run_leaves_its_policy_its_state_and_its_metrics(job, left_over, spec_of, restored, uninterrupted, tmp_path):
    spec = spec_of(*SHORT)
    host = job.host(spec=spec).start()
    assert host.wait() == 0, host.text()
    assert host.failure() is None
    bundle = load_bundle(host.root / "model")
    assert bundle.manifest.lineage.seeds == (spec.seed,)
    assert bundle.manifest.lineage.config_hash == spec.config_hash
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:  # as the service packs it
        archive.add(host.root / "model", arcname=".")
    assert load_bundle(tmp_path / "model.tar.gz").digest == bundle.digest
    expected = uninterrupted(spec)
    assert restored() == expected
    values = re.findall(metric_regex("eval/return_mean"), host.text())
    rows = [json.loads(line) for line in expected["reports.jsonl"].splitlines()]
    assert [float(value) for value in values] == [row["metrics"]["eval/return_mean"] for row in rows]
    assert left_over() == ([], [])


def test_sigterm_saves_and_another_job_goes_on_to_the_same_bytes(job, left_over, spec_of, restored, uninterrupted):
    spec = spec_of("budget.steps=40_000", "evaluation.marks=40")
    first = job.host("first", spec=spec).start().until("[metric] step=5000")
    assert first.signal().wait() == 0, first.text()
    assert re.search(r"stopped after [\d]+ steps; saved", first.text())
    assert first.failure() is None
    assert not any((first.root / "model").iterdir()), "a stopped run has no policy to hand out"
    assert left_over() == ([], [])
    second = job.host("second", spec=spec).start()
    assert second.wait() == 0, second.text()
    assert "goes on after" in second.text()
    assert restored() == uninterrupted(spec)
    steps = [re.findall(r"\[metric\] step=(\d+)\.0", host.text()) for host in (first, second)]
    assert [int(step) for step in steps[0] + steps[1]] == list(range(1000, 40_001, 1000)), "each row is printed once"


def test_a_killed_machine_costs_what_was_not_saved_and_no_bit_more(job, spec_of, restored, uninterrupted):
    spec = spec_of("budget.steps=50_000", "evaluation.marks=50")
    first = job.host("first", spec=spec, save_every_s=0.1).start().until("[metric] step=20000")
    for process in job.alive():
        process.kill()
    first.wait()
    assert list((job.folder / "checkpoints").glob("*.tar"))
    second = job.host("second", spec=spec).start()
    assert second.wait() == 0, second.text()
    assert re.search(r"goes on after [1-9]", second.text())
    assert restored() == uninterrupted(spec)


def test_a_longer_run_goes_on_from_the_checkpoints_of_a_shorter_one(job, spec_of, restored, uninterrupted):
    spec = spec_of(*SHORT)
    assert job.host("first", spec=spec.model_copy(update={"stop_at_steps": 2000})).start().wait() == 0
    second = job.host("second", spec=spec).start()
    assert second.wait() == 0, second.text()
    assert "goes on after 2,000 steps" in second.text()
    assert restored() == uninterrupted(spec)


def test_an_exception_of_the_users_is_the_reason_with_all_that_is_needed_to_go_on(
    job, left_over, spec_of, broken_module
):
    path = os.pathsep.join([str(broken_module.parent), os.environ.get("PYTHONPATH", "")])
    spec = spec_of("env.id=broken_module:Broken-v0")
    host = job.host(spec=spec, resume_command="policylab resume runs/contained").start(PYTHONPATH=path)
    assert host.wait() == 1
    lines = host.failure().splitlines()
    assert lines[0] == "ValueError: boom: reward was NaN"
    assert lines[1] == "host algo-1, group homogeneousCluster"
    assert lines[2] == f"run contained, trial 0, tune 0, seed {spec.seed}"
    assert re.fullmatch(r"last checkpoint: after [1-9][\d,]* steps in .*/checkpoints", lines[3])
    assert lines[4] == "resume with: policylab resume runs/contained"
    assert "Traceback" in host.text(), "the log tells where"
    assert left_over() == ([], [])


def test_a_process_that_is_killed_is_named(job, left_over, spec_of):
    host = job.host(spec=spec_of(*LONG)).start().until("[metric] step=1000")
    (child,) = psutil.Process(host.process.pid).children()
    child.kill()
    assert host.wait() == 1
    assert host.failure().startswith("its worker process died (exit -9)")
    assert left_over() == ([], [])


def test_a_run_that_does_not_stop_is_killed_after_the_grace_and_what_it_saved_counts(job, left_over, spec_of):
    host = job.host(spec=spec_of(*LONG), grace_s=0.5, save_every_s=0.1).start().until("[metric] step=20000")
    (child,) = psutil.Process(host.process.pid).children()
    child.send_signal(signal.SIGSTOP)
    assert host.signal().wait() == 0, host.text()
    assert "did not stop within 0.5 s and is killed" in host.text()
    assert list((job.folder / "checkpoints").glob("*.tar"))
    assert left_over() == ([], [])


def test_checkpoints_of_another_run_are_refused(job, spec_of, tmp_path):
    (tmp_path / "spec.json").write_text(spec_of().model_dump_json())
    save_snapshot(tmp_path, into=job.folder / "checkpoints")
    other = job.host(spec=spec_of("seeds.root=7")).start()
    assert other.wait() == 2
    assert "checkpoints of another or a damaged run" in other.failure()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("input/data/run/spec.json", None, "spec.json: missing"),
        ("input/data/run/spec.json", "{}", "spec.json: not a RunSpec: experiment: Field required"),
        ("input/data/run/spec.json", "[", "spec.json: damaged"),
        ("input/config/resourceconfig.json", None, "resourceconfig.json: missing"),
        ("input/config/resourceconfig.json", "\xff", "resourceconfig.json: damaged"),
    ],
)
def test_bad_input_is_a_user_error(job, left_over, spec_of, file, content, words):
    host = job.host(spec=spec_of())
    (host.root / file).unlink()
    if content is not None:
        (host.root / file).write_text(content)
    assert host.start().wait() == 2
    assert words in host.failure()
    assert "Traceback" not in host.text()
    assert left_over() == ([], [])


def test_an_unknown_head_group_ends_the_job_at_once(job, spec_of):
    groups = {"learner": ["algo-2"], "rollout": ["algo-1"]}
    for name in ("algo-1", "algo-2"):
        host = job.host(name, spec=spec_of(), groups=groups, head_group="lerner").start()
        assert host.wait() == 2
        assert "did you mean 'learner'? (groups: learner, rollout)" in host.failure()


def test_a_model_that_cannot_be_written_fails_the_job_and_keeps_the_training(job, spec_of):
    host = job.host(spec=spec_of(*SHORT))
    (host.root / "model" / "foreign").write_text("")
    assert host.start().wait() == 2
    assert "holds 'foreign', which is no part of a bundle" in host.failure()
    assert (job.folder / "checkpoints" / "result.json").exists()


def test_a_full_disk_is_the_reason(job, spec_of):
    """A file system of a few KiB takes neither the checkpoints nor, in another job, the model."""
    for number, place in enumerate(("checkpoints", "model")):
        host = job.host(f"host-{number}", spec=spec_of("budget.steps=3000", "evaluation.marks=3"))
        mounted = (host.root / place).resolve()
        mount = f'mount -t tmpfs -o size=4k tmpfs {mounted} && exec "$@"'
        isolated = ["unshare", "-Urm", "sh", "-c"]
        if subprocess.run([*isolated, mount, "sh", "true"], capture_output=True).returncode:
            pytest.skip("this machine allows no mount namespaces")
        assert host.start(*isolated, mount, "sh").wait() == 1, host.text()
        assert host.failure().startswith(f"cannot write {host.root / place}")
        assert "No space left on device" in host.failure()


def test_a_training_job_of_a_tuning_job_trains_with_the_values_drawn_for_it(job, spec_of, restored, tmp_path):
    host = job.host(spec=spec_of())
    (host.root / "input/data/run/spec.json").unlink()
    (host.root / "input/data/run/experiment.yaml").write_text(
        "{name: tuned, env: {id: FrozenLake-v1}, agent: {kind: q_learning, execution: plain}, budget: {steps: 1000},"
        " seeds: {tune: 1}, search: {limits: {trials: 3}, space: {parameters: {"
        "agent.learning_rate: {kind: continuous, low: 0.1, high: 1.0}}}}}"
    )
    drawn = {"agent.learning_rate": "0.25", "_tuning_objective_metric": "eval/return_mean", "sagemaker_program": "x.py"}
    (host.root / "input/config/hyperparameters.json").write_text(json.dumps(drawn))
    assert host.start().wait() == 0, host.text()
    restored()
    assert json.loads((tmp_path / "there" / "spec.json").read_text())["agent"]["learning_rate"]["value"] == 0.25
    assert load_bundle(host.root / "model").manifest.environment.id == "FrozenLake-v1"
    assert re.search(metric_regex("eval/return_mean"), host.text())  # the objective, for the service to find

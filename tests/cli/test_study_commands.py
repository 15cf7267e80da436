"""The commands on studies as a user types them: a study that is killed, looked at, resumed and used."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from policylab.cli import main
from policylab.files import locked
from policylab.tuning.tune import tune

Cli = Callable[..., tuple[str, str]]
STUDY = """
name: small_tune
env: {id: FrozenLake-v1}
agent:
  kind: q_learning
  learning_rate: 0.1
  discount: 0.99
  exploration: {kind: epsilon_greedy, epsilon: {kind: linear, start: 1.0, end: 0.05, fraction: 0.5}}
budget: {steps: 20_000}
seeds: {tune: 2, confirm: 2}
evaluation: {marks: 4}
tracking: {kind: none}
search:
  space:
    parameters:
      agent.learning_rate: {kind: continuous, low: 0.005, high: 1.0}
      agent.exploration.epsilon.end: {kind: continuous, low: 0.0, high: 0.3}
  searcher: {kind: random}
  scheduler: {kind: fixed}
  limits: {trials: 12}
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run commands in this process, from a folder with one file; returns (standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(STUDY)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        try:
            returned: Any = main(arguments)
        except SystemExit as left:  # argparse leaves this way
            returned = left.code
        out, err = capsys.readouterr()
        assert returned == code, (returned, out[-2000:], err[-2000:])
        assert "Traceback" not in out + err
        return out, err

    yield call
    signal.signal(signal.SIGTERM, handler)


def policylab(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "policylab", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return done


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a study whose process was killed in the middle."""
    for _ in range(5):  # on a busy machine a study may be over before it is looked at again
        folder = tmp_path_factory.mktemp("studies")
        (folder / "small.yaml").write_text(STUDY)
        command = [sys.executable, "-m", "policylab", "tune", "small.yaml"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            logs = list(folder.glob("runs/*/study/events.jsonl"))
            if logs and logs[0].read_text().count('"event": "end"') >= 3:
                break
            time.sleep(0.02)
        process.kill()
        process.wait()
        (run,) = folder.glob("runs/*")
        if '"event": "complete"' not in (run / "study" / "events.jsonl").read_text():
            assert process.returncode == -signal.SIGKILL
            return run
    raise AssertionError("the study was over before it could be killed, five times")


@pytest.fixture(scope="module")
def interrupted(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the killed study, which stays as it is."""
    copy = tmp_path_factory.mktemp("interrupted") / killed.name
    shutil.copytree(killed, copy)
    return copy


@pytest.fixture(scope="module")
def finished(killed: Path, interrupted: Path) -> Path:
    """The killed study, resumed to its end."""
    policylab("resume", str(killed), cwd=killed.parent)
    return killed


def test_a_killed_study_can_be_looked_at(interrupted: Path, cli: Cli) -> None:
    document = json.loads(cli("study", "show", str(interrupted), "--json")[0])
    assert document["status"] == "interrupted"
    assert document["reason"] is None
    assert document["confirmed"] is None
    assert 1 <= document["trials"] < 12
    assert {row["state"] for row in document["leaders"]} <= {"trained", "running", "paused"}
    text, _ = cli("study", "show", str(interrupted))
    assert "interrupted; not over yet" in text
    assert "(so far)" in cli("study", "best", str(interrupted))[0].splitlines()[0]


def test_a_killed_study_is_projected_and_later_brought_up_to_date(
    interrupted: Path, finished: Path, cli: Cli, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/view.db"
    cli("study", "export", str(interrupted), "--format", "optuna", "--storage", url)
    before = optuna.load_study(study_name=finished.name, storage=url)
    assert any(not trial.state.is_finished() for trial in before.trials)
    document = json.loads(cli("study", "export", str(finished), "--format", "optuna", "--storage", url, "--json")[0])
    assert document == {"storage": url, "study_name": finished.name, "trials": 12}
    after = optuna.load_study(study_name=finished.name, storage=url)
    live = optuna.load_study(study_name=finished.name, storage=f"sqlite:///{finished}/study/optuna.db")
    assert all(trial.state is optuna.trial.TrialState.COMPLETE for trial in after.trials)
    assert [trial.value for trial in after.trials] == [trial.value for trial in live.trials]


def test_a_killed_study_has_no_report_and_says_what_to_do(interrupted: Path, cli: Cli) -> None:
    _, err = cli("report", str(interrupted), code=2)
    assert f"the search of {interrupted} is not over: finish it with `policylab resume {interrupted}`" in err


def test_a_killed_study_is_uploaded_as_one_that_nobody_is_at(interrupted: Path, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    copy, store = tmp_path / interrupted.name, tmp_path / "mlflow.db"
    shutil.copytree(interrupted, copy)

    def statuses() -> set[str]:
        cli("sync", str(copy), "--uri", f"sqlite:///{store}")
        with contextlib.closing(sqlite3.connect(store)) as database:
            return {status for (status,) in database.execute("select status from runs")}

    assert "KILLED" in statuses()
    assert "RUNNING" not in statuses()
    with locked(copy / "run.lock"):
        assert "RUNNING" in statuses()


def test_a_killed_study_goes_on_with_another_launcher(
    interrupted: Path, finished: Path, cli: Cli, tmp_path: Path
) -> None:
    copy = tmp_path / interrupted.name
    shutil.copytree(interrupted, copy)
    _, err = cli("resume", str(copy), "--set", "budget.steps=9", code=2)
    assert "the results depend on budget.steps=9; resume takes other settings of launcher, tracking and" in err
    _, err = cli("resume", str(copy), "--launcher", "inlin", code=2)
    assert "did you mean 'inline'" in err
    with locked(copy / "run.lock"):
        assert "in use by another" in cli("resume", str(copy), "--launcher", "inline", code=2)[1]
    assert (copy / "config.yaml").read_bytes() == (interrupted / "config.yaml").read_bytes()
    found = json.loads(cli("resume", str(copy), "--launcher", "inline", "--set", "launcher.workers=1", "--json")[0])
    expected = json.loads((finished / "result.json").read_text())
    assert yaml.safe_load((copy / "config.yaml").read_text())["launcher"]["kind"] == "inline"
    assert [found[name] for name in ("selected", "confirmed")] == [expected[name] for name in ("selected", "confirmed")]


def test_a_storage_is_for_one_format(finished: Path, cli: Cli) -> None:
    _, err = cli("study", "export", str(finished), "--storage", "sqlite:///x.db", code=2)
    assert "--storage sqlite:///x.db takes the study with --format optuna" in err


def test_show_ranks_the_winner_first_and_says_what_was_confirmed(finished: Path, cli: Cli) -> None:
    document = json.loads(cli("study", "show", str(finished), "--json")[0])
    result = json.loads((finished / "result.json").read_text())
    assert document["status"] == "finished"
    assert document["reason"] == "limits.trials: 12 configurations tried"
    first = document["leaders"][0]
    assert first["trial"] == document["best"] == result["search"]["winner"]
    assert first["value"] == pytest.approx(document["selected"]["value"])
    assert first["n_seeds"] == 2
    assert first["ci"][0] <= first["value"] <= first["ci"][1]
    assert [row["rank"] for row in document["leaders"]] == list(range(1, 13))
    assert document["budget"]["spent_steps"] == 12 * 2 * 20_000
    assert document["confirmed"] == result["confirmed"]
    assert document["confirmation"]["runs"] == document["confirmation"]["planned"]


def test_the_verdict_is_what_the_runs_say(finished: Path) -> None:
    """Optimism gap and the chance to beat the default, worked out anew from the values of single runs."""
    found = json.loads((finished / "result.json").read_text())["search"]

    def values(trial: int, role: str) -> list[float]:
        folders = sorted(finished.glob(f"trials/{trial:04d}/{role}-*"))
        return [json.loads((folder / "result.json").read_text())["value"] for folder in folders]

    tuned, confirmed = values(found["winner"], "tune"), values(found["winner"], "confirm")
    default = values(found["default"], "confirm")
    assert len(tuned) == len(confirmed) == len(default) == 2
    assert found["optimism_gap"] == pytest.approx(sum(tuned) / 2 - sum(confirmed) / 2)
    assert found["default_confirmed"]["value"] == pytest.approx(sum(default) / 2)
    wins = [(ours > theirs) + (ours == theirs) / 2 for ours in confirmed for theirs in default]
    assert found["beats_default"]["value"] == pytest.approx(sum(wins) / 4)
    specs = [json.loads(path.read_text()) for path in finished.glob("trials/*/*/spec.json")]
    seeds = {role: {spec["seed"] for spec in specs if spec["role"] == role} for role in ("tune", "confirm")}
    assert len(seeds["tune"]) == len(seeds["confirm"]) == 2, "all trials of a role share its seeds"
    assert not seeds["tune"] & seeds["confirm"]


def test_a_result_of_an_earlier_version_is_shown(finished: Path, cli: Cli, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    result = json.loads((copy / "result.json").read_text())
    del result["search"]["improvement"], result["search"]["optimism_gap_ci"]
    (copy / "result.json").write_text(json.dumps(result))
    text, _ = cli("study", "show", str(copy))
    assert "default  " in text
    assert "seed by seed" not in text


def test_show_is_readable_and_can_be_cut(finished: Path, cli: Cli) -> None:
    text, _ = cli("study", "show", str(finished), "--top", "3")
    assert "480,000 steps = 24.0 full trainings" in text
    assert "learning_rate=" in text
    assert "epsilon.end=" not in text.partition("rank")[0]
    assert text.rstrip().endswith("... 9 more: --top 0")
    assert len(text.partition("rank")[2].splitlines()) == 1 + 3 + 1


def test_a_warm_started_study_tells_the_best_of_all(finished: Path, cli: Cli, tmp_path: Path) -> None:
    start = f"search.warm_start={{kind: identical_data_and_algorithm, parents: [{finished}]}}"
    given = ["--set", start, "--set", "search.limits.trials=2", "--set", "seeds.confirm=0"]
    text, _ = cli("tune", "small.yaml", "--out", str(tmp_path / "runs"), *given)
    (run,) = (tmp_path / "runs").glob("small_tune-*")
    found = json.loads((run / "result.json").read_text())["search"]
    (own,) = (best for best in found["bests"] if best["study"] is None)
    (other,) = (best for best in found["bests"] if best["study"] is not None)
    parent = json.loads(cli("study", "show", str(finished), "--json")[0])
    assert other["study"].startswith("small_tune")
    assert other["value"] == pytest.approx(max(row["value"] for row in parent["leaders"]))
    assert own["configuration"] == found["configuration"]
    assert found["bests"][0]["value"] == max(own["value"], other["value"])
    assert "overall best" in text
    assert "overall best" in cli("study", "show", str(run))[0]
    assert "<h2>Warm start</h2>" in (run / "report.html").read_text()


def test_a_running_study_is_called_running(finished: Path, cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    with locked(copy / "run.lock"):
        assert json.loads(cli("study", "show", str(copy), "--json")[0])["status"] == "running"


def test_json_may_stand_before_or_after_the_command(finished: Path, cli: Cli) -> None:
    assert cli("study", "--json", "show", str(finished)) == cli("study", "show", str(finished), "--json")


def test_the_best_configuration_is_an_experiment_file(finished: Path, cli: Cli, tmp_path: Path) -> None:
    text, _ = cli("study", "best", str(finished))
    document = json.loads(cli("study", "best", str(finished), "--json")[0])
    assert yaml.safe_load(text) == yaml.safe_load(document["yaml"])
    assert "# confirmed at" in text
    assert document["final"]
    (tmp_path / "best.yaml").write_text(text)
    planned = json.loads(cli("plan", "best.yaml", "--json")[0])
    assert planned["search"] is None
    (line,) = (line for line in text.splitlines() if line.startswith("# --set "))
    overridden = json.loads(cli("plan", "small.yaml", *shlex.split(line.removeprefix("# ")), "--json")[0])
    assert overridden["config_hash"] == planned["config_hash"]


def test_every_report_is_exported(finished: Path, cli: Cli) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("study", "export", str(finished))[0])))
    assert len(rows) == 12 * 2 * 4
    marks = ["5000", "10000", "15000", "20000"]
    places = itertools.product(map(str, range(12)), ["0", "1"], marks)
    assert {(row["trial"], row["seed"], row["resource"]) for row in rows} == set(places)
    same = json.loads(cli("study", "export", str(finished), "--format", "json")[0])
    assert [float(row["value"]) for row in rows] == [row["value"] for row in same]
    assert 0.005 <= same[0]["agent.learning_rate"] <= 1.0


def test_importances_come_with_their_number_of_trials(finished: Path, cli: Cli) -> None:
    document = json.loads(cli("study", "importance", str(finished), "--json")[0])
    assert document["n_trials"] == 12
    assert document["resource"] == 20_000
    assert sum(document["shares"].values()) == pytest.approx(1.0)
    out, err = cli("study", "importance", str(finished))
    assert "fANOVA of 12 configurations at 20,000 steps" in out
    assert "warning: 12 configurations for 2 parameters: the shares are a hint" in err


def test_too_few_trials_for_importances_are_no_traceback(interrupted: Path, cli: Cli) -> None:
    _, err = cli("study", "importance", str(interrupted), code=1)
    assert "importances need 10 configurations" in err


def test_a_study_and_its_file_make_the_same_request(finished: Path, cli: Cli) -> None:
    of_run = json.loads(cli("study", "to-sagemaker", str(finished), "--json")[0])
    out, err = cli("study", "to-sagemaker", "small.yaml")
    assert json.loads(out) == of_run["request"]
    assert of_run["errors"] == []
    job = of_run["request"]["HyperParameterTuningJobConfig"]
    assert job["Strategy"] == "Random"
    assert job["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 12
    static = of_run["request"]["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static["agent.kind"] == "q_learning"
    assert static["agent.exploration.epsilon.start"] == "1.0"
    assert not any(name.startswith("agent.learning_rate") or name == "agent.exploration.epsilon.end" for name in static)
    assert all(f"not expressible: {text}" in err for text in of_run["not_expressible"])
    assert "2 tuning seeds" in err


def test_a_request_asks_for_as_many_jobs_at_once_as_train_at_once_here(cli: Cli) -> None:
    one_seed = json.loads(
        cli("study", "to-sagemaker", "small.yaml", "--set", "search.scheduler={kind: asha}", "--json")[0]
    )
    assert not any("tuning seeds" in line for line in one_seed["not_expressible"]), "nothing is lost: asha has one"
    out, _ = cli("study", "to-sagemaker", "small.yaml", "--set", "launcher={kind: inline, workers: 3}")
    assert json.loads(out)["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"] == 3


def test_without_botocore_the_request_is_printed_and_the_missing_check_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    out, err = cli("study", "to-sagemaker", "small.yaml")
    assert json.loads(out)["HyperParameterTuningJobName"] == "small-tune"
    assert "not checked against the service model" in err
    assert "pip install 'policylab[sagemaker]'" in err


def test_a_request_that_would_be_refused_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(STUDY.replace("trials: 12", "trials: 1_000_000"))
    out, err = cli("study", "to-sagemaker", "many.yaml", code=2)
    assert "MaxNumberOfTrainingJobs" in out
    assert "error: HyperParameterTuningJobConfig.ResourceLimits.MaxNumberOfTrainingJobs" in err


@pytest.mark.parametrize("command", ["show", "best", "export", "importance"])
def test_runs_without_a_study_are_refused(cli: Cli, command: str, tmp_path: Path) -> None:
    from policylab.experiments.rundir import create_run
    from policylab.experiments.schema import load_experiment

    plain = create_run(load_experiment("small.yaml", overrides=["search=null"]), parent=tmp_path)
    _, err = cli("study", command, str(plain.path), code=2)
    assert f"error: {plain.path} holds no study" in err
    _, err = cli("study", command, "runs/none", code=2)
    assert "error: runs/none: no such run directory" in err


def test_a_study_that_has_not_begun_is_shown_empty(cli: Cli, tmp_path: Path) -> None:
    from policylab.experiments.rundir import create_run
    from policylab.experiments.schema import load_experiment

    run = create_run(load_experiment("small.yaml"), parent=tmp_path)
    assert json.loads(cli("study", "show", str(run.path), "--json")[0])["leaders"] == []
    assert "0 configurations in 0 runs" in cli("study", "show", str(run.path))[0]
    assert cli("study", "export", str(run.path))[0] == "\n"
    _, err = cli("study", "best", str(run.path), code=1)
    assert "no configuration has a value yet" in err


@pytest.mark.parametrize("command", ["show", "best", "export", "importance"])
def test_a_damaged_log_is_told_with_its_line(finished: Path, cli: Cli, command: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    log = copy / "study/events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:5], '{"event": "report", "trial": 77}\n', *lines[5:]]))
    _, err = cli("study", command, str(copy), code=2)
    assert "study/events.jsonl:6: not an event that can follow the ones before it" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "best", "export", "importance"])
def test_a_log_that_was_lost_beside_its_outcome_is_told(finished: Path, cli: Cli, command: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "study/events.jsonl").write_text("")
    _, err = cli("study", command, str(copy), code=2)
    assert re.search(r"study/events.jsonl: lacks trial \d+, which .*study/outcome.json selects; restore both", err)
    assert err.count("\n") == 1


def test_a_storage_that_fails_is_one_sentence(finished: Path, cli: Cli) -> None:
    _, err = cli("study", "export", str(finished), "--format", "optuna", "--storage", "sqlite:////no/such/x.db", code=1)
    assert err.startswith("error: the Optuna storage sqlite:////no/such/x.db took nothing: ")
    assert "unable to open database file" in err
    _, err = cli("study", "export", str(finished), "--format", "optuna", "--storage", "nonsense", code=1)
    assert "took nothing" in err
    driverless = ["--format", "optuna", "--storage", "postgresql+pg8000://127.0.0.1:9/studies"]
    _, err = cli("study", "export", str(finished), *driverless, code=1)
    assert err.endswith("No module named 'pg8000': install the driver of that database beside policylab\n")


def test_tune_needs_a_search(cli: Cli, tmp_path: Path) -> None:
    _, err = cli("tune", "frozenlake", code=2)
    assert "error: frozenlake: there is no search section, so there is nothing to tune; add `search:`" in err
    _, err = cli("tune", "small.yaml", "--set", "search.storage=here", code=2)
    assert "search.storage" in err
    assert sorted(os.listdir(tmp_path)) == ["small.yaml"]


def test_a_wrong_subcommand_is_told_what_was_meant(cli: Cli) -> None:
    _, err = cli("study", "shwo", "x", code=2)
    assert "did you mean 'show'?" in err
    _, err = cli("study", code=2)
    assert "required: COMMAND" in err


def test_the_plan_of_a_race_enters_as_many_as_its_lowest_rung_takes(cli: Cli) -> None:
    race = ["--set", "search.scheduler={kind: race}", "--set", "search.limits={steps: 1_200_000}"]
    rehearsal = json.loads(cli("plan", "small.yaml", *race, "--json")[0])["search"]["rehearsal"]
    assert list(rehearsal["levels"]) == ["4000", "10000", "20000"]
    price = 4_000 + 6_000 / 2 + 10_000 / 4  # of one that enters: half goes on, and half of those
    assert rehearsal["trials"] == pytest.approx(0.75 * 1_200_000 / price, rel=0.1)
    assert 1_100_000 <= rehearsal["steps"] <= 1_200_000


def test_the_plan_of_a_grid_counts_what_a_condition_leaves(cli: Cli) -> None:
    rate = {"kind": "categorical", "values": [0.1, 0.5]}
    decay = {"kind": "categorical", "values": [0.0, 0.5, 0.9], "when": {"agent.kind": "sarsa_lambda"}}
    kinds = {"kind": "categorical", "values": ["q_learning", "sarsa_lambda"]}
    parameters = {"agent.kind": kinds, "agent.learning_rate": rate, "agent.trace_decay": decay}
    grid = {"searcher": {"kind": "grid"}, "space": {"parameters": parameters}, "scheduler": {"kind": "fixed"}}
    document = json.loads(cli("plan", "small.yaml", "--set", f"search={json.dumps(grid)}", "--json")[0])
    assert document["search"]["trials_at_most"] == document["search"]["rehearsal"]["trials"] == 2 + 2 * 3


def test_the_plan_of_a_search_rehearses_its_scheduler(cli: Cli) -> None:
    document = json.loads(cli("plan", "small.yaml", "--json")[0])
    assert (document["trials"], document["runs"], document["total_steps"]) == (12, 12 * 2 + 4, (12 * 2 + 4) * 20_000)
    assert document["search"]["rehearsal"] == {
        "trials": 12, "runs": 24, "steps": 480_000, "saved_by_resuming_steps": 0, "levels": {"20000": 24},
    }  # fmt: skip
    assert document["search"]["space"]["default"] == {"agent.learning_rate": 0.1, "agent.exploration.epsilon.end": 0.05}
    halving = ["--set", "search.scheduler={kind: hyperband, eta: 2, min_resource: 0.25}", "--set", "seeds.tune=1"]
    document = json.loads(cli("plan", "small.yaml", *halving, "--json")[0])
    # Li et al. 2018, algorithm 1, R/r = 4 and eta 2: brackets 4-2-1, 3-1, 3; with 12 trials a second 4-... follows.
    assert list(document["search"]["rehearsal"]["levels"]) == ["5000", "10000", "20000"]
    assert document["search"]["steps_at_most"] == 12 * 20_000
    assert any("1 tuning seed decides" in warning for warning in document["warnings"])
    text, _ = cli("plan", "small.yaml", *halving)
    assert "agent.learning_rate: continuous, 0.005 to 1, logarithmic" in text
    assert "runs that reach so many steps" in text


def test_a_plan_that_cannot_be_carried_out_is_refused(cli: Cli) -> None:
    _, err = cli("plan", "small.yaml", "--set", "search.limits={steps: 1000}", code=2)
    assert "the budget must pay for at least" in err


def test_who_met_the_target_is_best_in_every_view(cli: Cli, tmp_path: Path) -> None:
    """With three seeds each, the one that met it on its first has fewer than those before it."""
    space = {"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}}
    result = tune(
        lambda task: task.configuration["x"],
        space,
        limits={"trials": 40, "target": 0.9},
        searcher="random",
        scheduler="fixed",
        seeds=3,
        folder=tmp_path / "met",
    )
    assert result.reason.startswith("limits.target")
    assert result.best.value >= 0.9
    assert json.loads(cli("study", "best", str(tmp_path / "met"), "--json")[0])["trial"] == result.best.id
    assert json.loads(cli("study", "show", str(tmp_path / "met"), "--json")[0])["best"] == result.best.id


def test_a_study_of_any_callable_is_read_like_that_of_an_experiment(cli: Cli, tmp_path: Path) -> None:
    space = {"parameters": {name: {"kind": "continuous", "low": 0.0, "high": 1.0} for name in ("x", "y.z")}}
    folder = tmp_path / "bowl"
    result = tune(
        lambda task: (task.configuration["x"] - 0.3) ** 2, space, limits={"trials": 12}, mode="min", folder=folder
    )
    document = json.loads(cli("study", "best", str(folder), "--json")[0])
    assert document["configuration"] == dict(result.best.configuration)
    assert document["final"]
    assert document["selected"]["value"] == result.best.value
    assert yaml.safe_load(cli("study", "best", str(folder))[0]) == document["configuration"]
    rows = list(csv.DictReader(io.StringIO(cli("study", "export", str(folder), "--format", "csv")[0])))
    assert [float(row["value"]) for row in rows] == [trial.value for trial in result.trials]
    assert [float(row["y.z"]) for row in rows] == [trial.configuration["y.z"] for trial in result.trials]
    assert set(json.loads(cli("study", "importance", str(folder), "--json")[0])["shares"]) == {"x", "y.z"}
    _, err = cli("study", "export", str(folder), "--format", "optuna", code=2)
    assert "takes the study of a run directory" in err

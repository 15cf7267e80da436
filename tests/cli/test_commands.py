"""The commands as a user types them, on good and bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from policylab.cli import main
from policylab.extras import EXTRAS

SMALL = [
    "--set", "budget.steps=4000", "--set", "seeds.tune=3", "--set", "seeds.confirm=2", "--set", "tracking.kind=none",
    "--set", "evaluation.marks=4",
]  # fmt: skip


def policylab(*arguments, cwd, code=0, **environment):
    run = subprocess.run(
        [sys.executable, "-m", "policylab", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert run.returncode == code, (run.returncode, run.stdout[-2000:], run.stderr[-2000:])
    assert "Traceback" not in run.stderr + run.stdout
    return run


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run commands in this process, from an empty folder; returns (standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments, code=0):
        try:
            returned = main(arguments)
        except SystemExit as left:  # argparse leaves this way
            returned = left.code
        out, err = capsys.readouterr()
        assert returned == code, (returned, out[-2000:], err[-2000:])
        assert "Traceback" not in out + err
        return out, err

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two finished runs of one experiment with different learning rates, and one with another budget."""
    folder = tmp_path_factory.mktemp("finished")
    documents = [
        json.loads(policylab("run", "frozenlake", "--json", *SMALL, *extra, cwd=folder).stdout)
        for extra in ([], ["--set", "agent.learning_rate=0.5"], ["--set", "budget.steps=5000"])
    ]
    return folder, documents


def test_run_prints_one_document_with_everything_a_script_needs(finished):
    folder, (document, *_) = finished
    assert document["status"] == "finished"
    assert document["selected"]["n_seeds"] == 3
    assert document["confirmed"]["n_seeds"] == 2
    low, high = document["selected"]["ci"]
    assert low <= document["selected"]["value"] <= high
    exact = document["exact"]
    assert exact["optimal_return"] == pytest.approx(0.7441902878, abs=1e-9)  # registered optimum 0.74 in 100 steps
    assert exact["optimality_gap"] == pytest.approx(exact["optimal_return"] - exact["policy_return"])
    assert document["cost"]["env_steps"] == 5 * 4000
    assert document["cost"]["trials"] == 1
    assert document["execution"]["kind"] == "compiled"
    assert set(document["tracking"]) >= {"uri", "experiment_id", "run_id"}
    for path in ("run_dir", "report", "policy_bundle"):
        assert os.path.exists(document[path])
    assert os.path.dirname(document["run_dir"]) == str(folder / "runs")


def test_the_bundle_of_a_run_loads_and_acts(finished):
    from policylab.agents.bundle import load_bundle

    _, (document, *_) = finished
    bundle = load_bundle(Path(document["policy_bundle"]))
    assert bundle.policy.act(0) in range(4)
    assert bundle.manifest.lineage.config_hash == document["config_hash"]


def test_the_shipped_result_is_the_same_in_another_process(finished, tmp_path):
    _, (document, *_) = finished
    again = json.loads(policylab("run", "frozenlake", "--json", *SMALL, cwd=tmp_path, PYTHONHASHSEED="5").stdout)
    for key in ("selected", "confirmed", "exact", "config_hash"):
        assert again[key] == document[key]


def test_compare_gives_a_paired_difference_with_a_verdict(finished, cli):
    _, (first, second, _) = finished
    out, _ = cli("compare", first["run_dir"], second["run_dir"], "--json")
    (pair,) = json.loads(out)["pairs"]
    assert pair["paired"]
    assert pair["difference"]["value"] == pytest.approx(first["confirmed"]["value"] - second["confirmed"]["value"])
    assert pair["verdict"] in ("a is better", "b is better", "indistinguishable")


def test_compare_refuses_unlike_budgets_and_says_why(finished, cli):
    _, (first, _, other) = finished
    _, err = cli("compare", first["run_dir"], other["run_dir"], code=2)
    assert "different training budget in steps (4000 and 5000)" in err


def test_report_is_written_again(finished, cli):
    _, (document, *_) = finished
    os.remove(document["report"])
    cli("report", document["run_dir"])
    page = Path(document["report"]).read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_resume_of_a_finished_run_changes_nothing(finished, cli):
    _, (document, *_) = finished
    again = json.loads(cli("resume", document["run_dir"], "--json")[0])
    assert again["selected"] == document["selected"]
    assert again["cost"]["env_steps"] == document["cost"]["env_steps"]


def test_plan_prices_without_training(cli, tmp_path):
    document = json.loads(cli("plan", "taxi", "--json")[0])
    assert document["total_steps"] == document["runs"] * document["steps_per_run"]
    assert document["environment"]["max_episode_steps"] == 200
    assert any("8" in warning and "7.93" in warning for warning in document["warnings"])  # unreachable threshold
    assert os.listdir(tmp_path) == []


def test_every_mistake_in_a_file_is_listed_with_its_place(cli, tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nenv: {id: FrozenLake-v1}\nagent:\n  kind: q_learning\n  learning_rat: 0.1\n  discount: 2\n"
        "budget: {steps: 0}\n"
    )
    _, err = cli("run", "bad.yaml", code=2)
    assert "error: bad.yaml:5:3: agent.learning_rat: unknown key; did you mean 'learning_rate'?" in err
    assert "bad.yaml:6:3: agent.discount: Input should be less than or equal to 1, got 2" in err
    assert "bad.yaml:7:10: budget.steps: Input should be greater than or equal to 1, got 0" in err
    assert os.listdir(tmp_path) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "frozenlak"], "no such file or shipped config; did you mean 'frozenlake'?"),
        (["run", "frozenlake", "--set", "env.id=FrozenLake-v99"], "FrozenLake"),
        (["run", "frozenlake", "--set", "env.id=FrozenLak-v1"], "did you mean"),
        (["run", "frozenlake", "--set", "env.id=nothere:X-v0"], "nothere"),
        (["run", "frozenlake", "--set", "env.kwargs.map=4x4"], "map"),
        (["run", "frozenlake", "--set", "env.id=CartPole-v1", "--set", "env.kwargs={}"], "features"),
        (["run", "frozenlake", "--set", "agent.kind=q_lerning"], "did you mean 'q_learning'?"),
        (["run", "frozenlake", "--out", "/proc/nowhere"], "cannot create /proc/nowhere"),
        (["resume", "nowhere"], "no such run directory"),
        (["resume", "."], "run.json"),
        (["report", "nowhere"], "no such run directory"),
        (["compare", "nowhere", "nowhere"], "no such run directory"),
        (["compare", "nowhere"], "no such run directory"),
        (["show", "q_lerning"], "did you mean 'q_learning'?"),
        (["lst"], "did you mean 'list'?"),
        (["list", "env"], "did you mean 'envs'?"),
        ([], "usage"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, message, cli):
    code = 1 if "/proc/nowhere" in arguments else 2
    out, err = cli(*arguments, code=code)
    assert message in out + err


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            "{id: FrozenLak-v1}",
            "file.yaml:2:7: env.id: unknown environment 'FrozenLak-v1'; did you mean 'FrozenLake-v1'?",
        ),
        (
            "{id: FrozenLake-v1, kwargs: {map_nam: 4x4}}",
            "file.yaml:2:35: env.kwargs.map_nam: FrozenLake-v1 has no argument `map_nam`; did you mean 'map_name'?",
        ),
        ("{id: CartPole-v1}", "file.yaml:3:1: agent: features 'auto' cannot index the observation space Box"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_the_environment_refuses_is_told_with_its_place(command, env, message, cli, tmp_path):
    (tmp_path / "file.yaml").write_text(f"name: x\nenv: {env}\nagent: {{kind: q_learning}}\nbudget: {{steps: 10}}\n")
    assert message in cli(command, "file.yaml", code=2)[1]


def test_wrong_overrides_of_a_deep_agent_are_told_with_their_places(cli, tmp_path):
    pytest.importorskip("ray")
    agent = "{kind: rllib, algorithm: PPO,\n  overrides: {\n    clip_parm: 0.1,\n    lr: 1}}"
    (tmp_path / "file.yaml").write_text(f"name: x\nenv: {{id: CartPole-v1}}\nagent: {agent}\nbudget: {{steps: 10}}\n")
    errors = cli("plan", "file.yaml", code=2)[1]
    assert "error: file.yaml:5:5: agent.overrides.clip_parm: PPOConfig has no such attribute" in errors
    assert "error: file.yaml:6:5: agent.overrides.lr: is set by agent.learning_rate" in errors


def test_an_error_with_json_is_a_json_document(cli, tmp_path):
    out, _ = cli("run", "frozenlak", "--json", code=2)
    assert json.loads(out)["error"]["kind"] == "ConfigError"


def test_catalogue_lists_shows_and_has_a_schema(cli, tmp_path):
    agents = {row["name"] for row in json.loads(cli("list", "agents", "--json")[0])}
    assert {"q_learning", "sarsa", "dyna_q", "bandit_ucb1"} <= agents
    envs = {row["name"] for row in json.loads(cli("list", "envs", "--json")[0])}
    assert {"FrozenLake-v1", "policylab/CatMouse-v0"} <= envs
    configs = {row["name"] for row in json.loads(cli("list", "configs", "--json")[0])}
    assert {"frozenlake", "taxi", "mountaincar_tiles"} <= configs
    assert "learning_rate" in cli("show", "q_learning")[0]
    assert "Discrete(484)" in cli("show", "policylab/CatMouse-v0")[0]
    assert "FrozenLake-v1" in cli("show", "frozenlake")[0]
    schema = json.loads(cli("schema")[0])
    assert schema["properties"]["budget"]


def test_doctor_reports_this_machine(cli, tmp_path):
    document = json.loads(cli("doctor", "--json")[0])
    assert document["healthy"]
    assert document["cores"] >= 1
    assert set(document["extras"]) == set(EXTRAS)

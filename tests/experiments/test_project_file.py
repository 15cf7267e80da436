"""The project file: defaults of the launcher that is chosen, and nothing else."""

import pytest

from policylab.errors import ConfigError
from policylab.experiments.schema import load_experiment

FILE = """launchers:
  ray: {workers: 3, cpus_per_run: 2.0}
  sagemaker:
    role_arn: arn:aws:iam::123456789012:role/policylab
    image: image
    s3_prefix: s3://bucket/policylab
    spot: {max_wait_s: 100000}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "policylab.yaml"


def launcher(*overrides):
    return load_experiment("taxi", overrides=overrides).launcher


def test_the_chosen_launcher_gets_its_defaults_and_overrides_go_first(project):
    project.write_text(FILE)
    assert launcher("launcher.kind=ray").workers == 3
    chosen = launcher("launcher.kind=sagemaker", "launcher.image=other", "launcher.spot.max_wait_s=90000")
    assert (chosen.image, chosen.s3_prefix, chosen.spot.max_wait_s) == ("other", "s3://bucket/policylab", 90_000)
    assert launcher().kind == "local"


def test_the_experiment_file_goes_before_the_project(project, tmp_path):
    project.write_text(FILE)
    experiment = tmp_path / "mine.yaml"
    experiment.write_text(
        "{name: mine, env: {id: Taxi-v3}, agent: {kind: q_learning}, budget: {steps: 10},"
        " launcher: {kind: ray, workers: 7}}"
    )
    assert load_experiment(str(experiment)).launcher.workers == 7
    assert load_experiment(str(experiment)).launcher.cpus_per_run == 2.0


def test_the_hash_of_an_experiment_does_not_depend_on_the_project(project):
    before = load_experiment("taxi", overrides=["launcher.kind=ray", "launcher.workers=1"]).config_hash
    project.write_text(FILE)
    assert load_experiment("taxi", overrides=["launcher.kind=ray"]).config_hash == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("launchers: {sagemaker: {role_am: x}}", "policylab.yaml:1:25: launcher.role_am: unknown key"),
        ("launchers: {sagemakr: {}}", "no launcher is called 'sagemakr'; did you mean 'sagemaker'?"),
        ("launcher: {kind: ray}", "launcher: unknown key; did you mean 'launchers'?"),
        ("[1]", "expected a mapping of settings"),
    ],
)
def test_a_mistake_in_it_is_told_with_its_place(project, content, words):
    project.write_text(content)
    with pytest.raises(ConfigError) as refused:  # noqa: PT011 - the words are compared below
        launcher("launcher.kind=sagemaker", "launcher.emulate=true")
    assert words in str(refused.value)

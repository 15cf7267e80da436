"""Tracking settings: what is refused, what the defaults become, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylab.errors import ConfigError
from policylab.experiments.tracking.flat import MAX_NAME, flatten, numbers, param_text, safe_name
from policylab.experiments.tracking.settings import MlflowTracking, NoTracking, parse, redacted


def mlflow(**fields: object) -> MlflowTracking:
    settings = parse({"kind": "mlflow", **fields}, place="tracking")
    assert isinstance(settings, MlflowTracking)
    return settings


def test_the_default_store_is_a_database_in_the_working_folder(tmp_path: Path) -> None:
    settings = mlflow().resolved(experiment="lake", folder=tmp_path)
    assert settings.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert (settings.experiment, settings.registered_model) == ("lake", "lake")


def test_mlflows_own_variable_names_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert mlflow().resolved(experiment="x", folder=tmp_path).uri == "http://tracker:5000"
    assert mlflow(uri="sqlite:////a.db").resolved(experiment="x", folder=tmp_path).uri == "sqlite:////a.db"


def test_a_file_store_in_mlflows_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI: .*plain folder"):
        mlflow().resolved(experiment="x", folder=tmp_path)


def test_a_relative_store_is_relative_to_the_working_folder(tmp_path: Path) -> None:
    settings = mlflow(uri="sqlite:///sub/a.db").resolved(experiment="x", folder=tmp_path)
    assert settings.uri == f"sqlite:///{tmp_path}/sub/a.db"
    assert settings.store_path == tmp_path / "sub" / "a.db"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uri": "file:///tmp/mlruns"}, "plain folder .*use a database such as sqlite:///mlflow.db"),
        ({"uri": "./mlruns"}, "plain folder"),
        ({"uri": "sqlite://"}, "in-memory"),
        ({"uri": "sqlite:///:memory:"}, "in-memory"),
        ({"alias": "latest"}, "reserves the alias 'latest'"),
        ({"alias": "v3"}, "reserves the alias 'v3'"),
        ({"alias": "my alias"}, "alias"),
        ({"registered_model": "a/b"}, "no '/'"),
        ({"flush_s": 0}, "flush_s: .*greater than or equal to 0.1"),
        ({"url": "http://x"}, "url: Extra inputs"),
        ({"kind": "wandb"}, "'none', 'mlflow'"),
    ],
)
def test_wrong_settings_are_refused_with_the_rule(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mlflow(**fields)


def test_no_tracking_needs_nothing() -> None:
    assert parse({"kind": "none"}, place="tracking") == NoTracking()


@pytest.mark.parametrize(
    "uri",
    [
        "http://ann:s3cret@tracker:5000/path",
        "postgresql+psycopg2://ann:s3cret@db/mlflow",
        "postgresql://ann:p@s3cret@db/mlflow",
        "https://:s3cret@tracker",
        "mysql://db/x?user=ann&password=s3cret&a=b",
        "cannot reach http://ann:s3cret@tracker:5000/api, try again",
    ],
)
def test_passwords_are_not_shown(uri: str) -> None:
    shown = redacted(uri)
    assert "s3cret" not in shown
    assert "***" in shown
    assert redacted(shown) == shown


def test_a_uri_without_password_is_shown_as_it_is() -> None:
    for uri in ("http://tracker:5000", "sqlite:////a/b.db", "http://tracker/x@y", "databricks://profile"):
        assert redacted(uri) == uri


@pytest.mark.filterwarnings("ignore")  # about MLflow's own type hints
@given(st.text(max_size=400))
def test_any_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    safe = safe_name(name)
    assert len(safe) <= MAX_NAME
    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(safe)


@given(st.lists(st.text(alphabet="ab/.@[", max_size=4), unique=True, max_size=30))
def test_different_names_stay_different(names: list[str]) -> None:
    assert len({safe_name(name) for name in names}) == len(names)


def test_parameters_are_the_leaves_of_the_settings() -> None:
    leaves = dict(flatten({"a": {"b": True, "c": [1, {"d": None}]}, "e": {}}))
    assert {name: param_text(leaf) for name, leaf in leaves.items()} == {
        "a.b": "true",
        "a.c.0": "1",
        "a.c.1.d": "null",
        "e": "{}",
    }


def test_long_parameters_are_cut_visibly() -> None:
    assert len(param_text("x" * 7000)) == 6000
    assert param_text("x" * 7000).endswith("...")


def test_figures_of_a_result_leave_text_and_samples_out() -> None:
    assert numbers({"a": 1, "b": True, "c": "x", "d": [1, 2], "e": {"ci": [0, 1], "f": None}, "g": 10**400}) == {
        "a": 1.0,
        "b": 1.0,
        "e/ci_low": 0.0,
        "e/ci_high": 1.0,
    }

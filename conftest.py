"""Rules for every test: slow proofs on request, no global random state, no settings of the user's shell."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest

STATE_ACCESS = {"get_state", "set_state", "seed"}  # hypothesis saves and restores the state with these
GLOBAL_DRAWS = [
    name
    for name, value in vars(np.random).items()
    if isinstance(getattr(value, "__self__", None), np.random.RandomState) and name not in STATE_ACCESS
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--slow``."""
    parser.addoption("--slow", action="store_true", help="run the slow proofs too")


def pytest_configure() -> None:
    """Have Ctrl-C work as on a terminal: a shell lets what it starts in its background, and its children, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked slow unless ``--slow`` is given."""
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow proof: run with --slow"))


@pytest.fixture(autouse=True)
def no_global_random_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse draws from NumPy's global generator, and notice those a library takes on our behalf."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a draw from NumPy's global generator; pass an explicit rng")

    for name in GLOBAL_DRAWS:
        monkeypatch.setattr(np.random, name, refuse)
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    yield
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert before["state"]["pos"] == after["state"]["pos"], "something drew from NumPy's global generator"
    assert (before["state"]["key"] == after["state"]["key"]).all(), "something drew from NumPy's global generator"


@pytest.fixture(autouse=True)
def no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tracking server and the cloud account of whoever runs the tests out of them."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

"""The page about environments names what is there: every application, its baselines, every extra."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policylab.envs.baselines import BASELINES, baseline_names
from policylab.envs.optional import PROVIDERS, SHOWCASE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "environments.md").read_text()
TOUCHED = re.findall(r"`(policylab/[\w-]+-v\d+)`", PAGE)


def test_every_environment_of_the_showcase_is_named() -> None:
    assert [name for name in SHOWCASE if f"`{name}`" not in PAGE] == []


def test_every_extra_has_a_row() -> None:
    assert [extra for extra in PROVIDERS if f"\n| `{extra}` |" not in PAGE] == []


def test_every_application_with_a_table_row_exists_and_names_its_baselines() -> None:
    ids = {key.rpartition(":")[0] for key in BASELINES.names()}
    assert len(TOUCHED) > 15
    assert [name for name in TOUCHED if name not in ids] == []
    missing = [
        (env_id, name) for env_id in TOUCHED for name in baseline_names(env_id) if not re.search(rf"\b{name}\b", PAGE)
    ]
    assert missing == []


@pytest.mark.parametrize("env_id", [key.rpartition(":")[0] for key in BASELINES.names() if "policylab/" in key])
def test_every_own_environment_with_a_baseline_is_on_the_page_or_in_the_textbook(env_id: str) -> None:
    textbook = {"Gambler", "CatMouse", "CatMouseCat", "PacManTiny", "PacMan", "PacManMedium"}
    assert env_id in TOUCHED or env_id.removeprefix("policylab/").rpartition("-")[0] in textbook

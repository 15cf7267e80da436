"""The worked example of CONTRIBUTING.md is an environment that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.envs.enumeration import table_of
from policylab.envs.planners import value_iteration

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_environment_works() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = [re.sub(r"(?m)^ {3}", "", block) for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)]
    namespace: dict[str, Any] = {"__name__": "coin_walk"}
    exec(blocks[0], namespace)
    env = namespace["CoinWalkEnv"](length=5)
    check_env(env, skip_render_check=True)
    mdp = table_of(env)
    assert np.allclose(mdp.probability.sum(axis=-1), 1.0)
    # Four steps to the right, each taking two tries on average.
    assert value_iteration(mdp, discount=1.0).values[0] == pytest.approx(-8.0)


def test_every_file_that_the_guide_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    invented = {"envs/coin_walk.py"}
    named = set(re.findall(r"`((?:envs|agents|tuning|launchers|experiments|docs)/[\w/]+\.(?:py|md))`", text))
    examples = {name for name in named if "/my_" in name} | invented
    assert [name for name in sorted(named - examples) if not (ROOT / name).exists()] == []

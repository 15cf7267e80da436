"""The report: complete, self-contained, safe, the same every time, and right about grids."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from policylab.envs.enumeration import table_of
from policylab.envs.planners import value_iteration
from policylab.errors import EnvironmentRuleError, StorageError
from policylab.experiments.report import (
    Cost,
    Curves,
    EnvironmentFacts,
    Estimate,
    Exact,
    Grid,
    Lineage,
    ReportData,
    episode_gif,
    gif_bytes,
    grid_of,
    write_report,
)
from policylab.experiments.report.episode import LAST_FRAME_MS, MAX_FRAMES, MAX_SIDE_PX
from policylab.experiments.report.figures import draw_figures, spread, value_limits
from policylab.experiments.report.grid import deciding_states
from policylab.experiments.report.style import VARIABLES
from policylab.experiments.report.text import interval

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)> $x_1^{ & </svg>"


def curves(role: Any, *, n_seeds: int = 3, n_marks: int = 4, value: float = 1.0) -> Curves:
    steps = 1000 * np.arange(1, n_marks + 1)
    returns = value - 1.0 / np.arange(1, n_marks + 1) - 0.01 * np.arange(n_seeds)[:, None]
    middle = returns.mean(axis=0)
    return Curves(
        role=role,
        seeds=[2**62 + i for i in range(n_seeds)],
        steps=steps,
        returns=returns,
        middle=middle,
        low=middle - 0.05,
        high=middle + 0.05,
        final=returns[:, -1],
    )


def frames(n: int, *, side: int = 8) -> list[NDArray[np.uint8]]:
    return [np.full((side, side, 3), 255 * i // max(1, n - 1), dtype=np.uint8) for i in range(n)]


def report(**changes: Any) -> ReportData:
    grid = Grid(
        values=np.array([[0.5, np.nan], [0.25, -1.0]]),
        actions=np.array([[[True, False], [False, False]], [[True, True], [False, True]]]),
        moves=((0, 1), (0, 0)),
        kinds=(("start", "goal"), ("free", "wall")),
        note="a slice",
        walls=(((0, 0), (1, 0)),),
    )
    full = ReportData(
        name="lake",
        status="finished",
        metric="undiscounted return per episode",
        cost=Cost(env_steps=4_000_000, wall_s=200.0, trials=1),
        lineage=Lineage("0" * 64, "abc123", "host-1", "2026-01-02T03:04:05+00:00", 7, {"numpy": "2.4"}),
        environment=EnvironmentFacts("FrozenLake-v1", 100, 16, 4, ("a note about it",)),
        config={"agent": {"kind": "q_learning", "discount": 0.99}, "seeds": {"tune": 3}},
        selected=Estimate(0.74428, 0.7391, 0.7494, 3),
        confirmed=Estimate(0.7312, 0.7203, 0.7421, 3),
        exact=Exact(optimal_return=0.7442, policy_return=0.7402, optimality_gap=0.004),
        curves=(curves("tune"), curves("confirm")),
        warnings=("too few seeds",),
        tracking={"uri": "sqlite:///mlflow.db"},
        files={"policy bundle": "runs/lake/bundle"},
        grid=grid,
        episode_gif=gif_bytes(frames(3)),
        episode_caption="one episode",
    )
    return dataclasses.replace(full, **changes)


class Tags(HTMLParser):
    """Collects what a browser would see: tags, attributes, ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_shows_every_number_a_reader_looks_for(tmp_path: Path) -> None:
    text = write_report(report(), tmp_path).read_text()
    for expected in (
        "0.744",
        "[0.739, 0.749] · 3 tuning seeds",
        "0.731",
        "[0.720, 0.742] · 3 confirmation seeds",
        "optimum 0.7442, this policy 0.7402",
        "4,000,000 environment steps, 1 trial",
        "3 min 20 s",
        "agent.discount",
        "0" * 64,
        "abc123",
        "too few seeds",
        "runs/lake/bundle",
        "sqlite:///mlflow.db",
        "a note about it",
        str(2**62 + 2),
        "a slice",
    ):
        assert expected in text, expected
    made = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert made == ["episode.gif", "learning_curves.png", "optimality_gap.png", "policy.png", "seeds.png"]
    with Image.open(tmp_path / "figures" / "policy.png") as image:
        image.verify()


def test_needs_no_network_and_runs_no_script(tmp_path: Path) -> None:
    text = write_report(report(), tmp_path).read_text()
    tags = Tags(text).found
    assert {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in tags} == set()
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:image/|#", attributes.get(name) or "#"), attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    hostile = report(
        name=HOSTILE,
        status=HOSTILE,
        metric=HOSTILE,
        description=HOSTILE,
        statistic=HOSTILE,
        warnings=[HOSTILE],
        config={HOSTILE: {HOSTILE: [HOSTILE]}, "agent": {"kind": HOSTILE}},
        tracking={HOSTILE: HOSTILE},
        files={HOSTILE: HOSTILE},
        episode_caption=HOSTILE,
        environment=EnvironmentFacts(HOSTILE, None, notes=[HOSTILE]),
        lineage=Lineage(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0, {HOSTILE: HOSTILE, "policylab": HOSTILE}),
    )
    text = write_report(hostile, tmp_path).read_text()
    clean = write_report(report(), tmp_path / "clean").read_text()
    assert {tag for tag, _ in Tags(text).found} == {tag for tag, _ in Tags(clean).found}
    assert all(not name.startswith("on") for _, attributes in Tags(text).found for name in attributes)


def test_drawings_follow_the_colours_of_the_page(tmp_path: Path) -> None:
    text = write_report(report(), tmp_path).read_text()
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert drawings.count("<svg") == 4
    for colour, variable in VARIABLES.items():
        assert colour not in drawings
        assert f"{variable}:" in text
    assert "prefers-color-scheme: dark" in text
    ids = [attributes["id"] for _, attributes in Tags(text).found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_same_data_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(report(), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 6
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    bare = ReportData(
        name="bare",
        status="interrupted",
        metric="return",
        cost=Cost(0, 0.0, 0),
        lineage=Lineage("", None, "", "", 0, {}),
        environment=EnvironmentFacts("CartPole-v1", 500),
        config={},
    )
    text = write_report(bare, tmp_path).read_text()
    assert not (tmp_path / "figures").exists()
    assert "no confirmation seeds" in text
    assert "not in a repository" in text
    for absent in ("<svg", "<aside", "Optimality gap", "<h2>Policy", "<h2>Learning", "None", "nan"):
        assert absent not in text, absent


@pytest.mark.parametrize(
    "odd",
    [
        {"curves": (curves("tune", n_seeds=1),), "selected": Estimate(0.7, float("nan"), float("nan"), 1)},
        {"curves": (curves("tune", n_marks=1), curves("confirm", n_marks=1))},
        {"curves": (dataclasses.replace(curves("tune"), returns=np.full((3, 4), np.nan), final=np.full(3, np.nan)),)},
        {"curves": tuple(dataclasses.replace(curves("tune"), **{k: np.full(4, np.nan)}) for k in ("low", "middle"))},
        {"curves": (curves("tune", value=-13.0),), "exact": Exact(-13.0, -13.0, 0.0)},
        {"exact": Exact(0.1, 0.7, -0.6)},
        {"curves": (curves("confirm", n_seeds=300, n_marks=1000),)},
        {"grid": Grid(np.full((1, 1), np.nan), np.zeros((1, 1, 2), bool), ((0, 1), (0, -1)), (("unheard of",),))},
        {"grid": Grid(np.zeros((40, 40)), np.ones((40, 40, 1), bool), ((0, 0),), (("free",) * 40,) * 40)},
    ],
    ids=["one seed", "one mark", "no value", "no band", "all optimal", "above", "many", "one cell", "large grid"],
)
def test_odd_results_are_drawn_too(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = write_report(report(**odd), tmp_path)
    assert path.stat().st_size < 3_000_000
    assert "</html>" in path.read_text()


def test_one_seed_claims_no_interval(tmp_path: Path) -> None:
    single = report(selected=Estimate(0.7, float("nan"), float("nan"), 1))
    assert "no interval · 1 tuning seed<" in write_report(single, tmp_path).read_text()


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*taken"):
        write_report(report(), tmp_path / "taken")


def test_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    code = f"""
import sys, matplotlib
sys.path.insert(0, {str(Path(__file__).parent)!r})
matplotlib.rcParams["font.size"] = 31
before = matplotlib.rcParams.copy()
from test_report import report, write_report
from pathlib import Path
write_report(report(), Path({str(tmp_path)!r}))
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(
    value=st.floats(-1e5, 1e5),
    below=st.floats(1e-6, 1e3),
    above=st.floats(1e-6, 1e3),
)
def test_a_shown_interval_contains_its_value(value: float, below: float, above: float) -> None:
    shown, brackets = interval(Estimate(value, value - below, value + above, 5))
    low, high = brackets.strip("[]").split(", ")
    numbers = [float(text.replace("−", "-").replace(",", "")) for text in (low, shown, high)]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[2]


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=40))
def test_the_axis_shows_every_late_value(values: list[float]) -> None:
    returns = np.array([values])
    low, high = value_limits([returns], also=[0.0])
    late = returns[:, returns.shape[1] // 4 :]
    assert low < min(late.min(), high)
    assert high > max(returns.max(), 0.0)


def test_the_axis_shows_a_level_that_all_late_values_exceed() -> None:
    returns = np.array([[-5000.0, -40.0, -20.0, -15.0, -13.0]])
    assert value_limits([returns], also=[-300.0])[0] < -300.0


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=50))
def test_dots_stay_in_their_row(values: list[float]) -> None:
    offsets = spread(np.array(values))
    assert offsets.shape == (len(values),)
    assert ((offsets >= 0) & (offsets <= 0.26 + 1e-9)).all()


def test_figures_show_the_optimum_and_every_seed() -> None:
    drawn = draw_figures(report(curves=(curves("tune", n_seeds=7),)))
    panel = drawn["learning_curves"].axes[0]
    heights = [np.unique(np.asarray(line.get_ydata())) for line in panel.lines]
    assert any(len(height) == 1 and height[0] == 0.7442 for height in heights)
    assert sum(line.get_linewidth() == 0.7 for line in panel.lines) == 7


def solved_grid(env_id: str, **kwargs: Any) -> tuple[Grid, gym.Env[Any, Any]]:
    env = gym.make(env_id, **kwargs)
    mdp = table_of(env)
    solution = value_iteration(mdp, discount=0.99)
    grid = grid_of(env, mdp, values=solution.values, policy=solution.policy)
    assert grid is not None
    return grid, env


def walk(grid: Grid, start: tuple[int, int]) -> list[tuple[int, int]]:
    """Follow the drawn arrows, as a reader of the map would, until a cell without one."""
    path = [start]
    blocked = {frozenset(pair) for pair in grid.walls}
    while grid.actions[path[-1]].any() and len(path) < 100:
        row, column = path[-1]
        d_row, d_column = grid.moves[int(grid.actions[row, column].argmax())]
        if (d_row, d_column) == (0, 0):
            break
        path.append((row + d_row, column + d_column))
        assert frozenset(path[-2:]) not in blocked, "an arrow points through a wall"
    return path


def test_frozen_lake_map_shows_the_exact_values() -> None:
    grid, _ = solved_grid("FrozenLake-v1")
    assert grid.values.shape == (4, 4)
    # Value of the start state under the best discounted policy, discount 0.99: the known 0.5420 of the 4x4 map.
    assert grid.values[0, 0] == pytest.approx(0.5420, abs=5e-5)
    holes_and_goal = [(1, 1), (1, 3), (2, 3), (3, 0), (3, 3)]
    assert np.argwhere(np.isnan(grid.values)).tolist() == [list(cell) for cell in holes_and_goal]
    assert not grid.actions[np.isnan(grid.values)].any()
    assert [grid.kinds[row][column] for row, column in holes_and_goal] == ["pit"] * 4 + ["goal"]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "start", "goal", "n_steps"),
    [
        ("FrozenLake-v1", {"is_slippery": False}, (0, 0), (3, 3), 6),
        ("CliffWalking-v1", {}, (3, 0), (3, 11), 13),  # Sutton and Barto, example 6.6: along the edge
        ("Taxi-v3", {}, (4, 4), (0, 0), 8),
        ("policylab/DynaMaze-v0", {}, (2, 0), (0, 8), 14),  # Sutton and Barto, figure 8.2
    ],
)
def test_the_arrows_lead_to_the_goal(
    env_id: str, kwargs: dict[str, Any], start: tuple[int, int], goal: tuple[int, int], n_steps: int
) -> None:
    grid, _ = solved_grid(env_id, **kwargs)
    path = walk(grid, start)
    assert path[-1] == goal
    assert len(path) - 1 == n_steps


def test_a_policy_may_be_given_as_probabilities_and_ties_show() -> None:
    env = gym.make("FrozenLake-v1")
    mdp = table_of(env)
    even = grid_of(env, mdp, values=np.zeros(16), policy=np.full((16, 4), 0.25))
    soft = grid_of(env, mdp, values=np.zeros(16), policy=np.tile([0.1, 0.7, 0.1, 0.1], (16, 1)))
    assert even is not None
    assert soft is not None
    assert even.actions[0, 0].all()
    assert soft.actions[0, 0].tolist() == [False, True, False, False]


def test_environments_off_the_grid_have_no_map() -> None:
    env = gym.make("policylab/Gambler-v0")
    mdp = table_of(env)
    assert grid_of(env, mdp, values=np.zeros(mdp.n_states), policy=np.zeros(mdp.n_states, dtype=int)) is None


def test_nothing_is_decided_where_no_episode_goes() -> None:
    env = gym.make("CliffWalking-v1")
    deciding = deciding_states(table_of(env))
    assert np.flatnonzero(~deciding).tolist() == list(range(37, 48))  # the cliff and the goal


def test_gif_plays_every_frame_and_holds_the_last(tmp_path: Path) -> None:
    path = episode_gif(frames(5), tmp_path / "deep" / "episode.gif", fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 5  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        durations = []
        for i in range(5):
            image.seek(i)
            durations.append(image.info["duration"])
            assert abs(np.asarray(image.convert("RGB")).astype(int) - 255 * i // 4).max() <= 4
    assert durations == [100, 100, 100, 100, LAST_FRAME_MS]


def test_long_and_large_episodes_are_capped() -> None:
    with Image.open(io.BytesIO(gif_bytes(frames(2, side=2 * MAX_SIDE_PX)))) as image:
        assert max(image.size) == MAX_SIDE_PX
    numbered = [np.full((4, 4, 3), i % 256, dtype=np.uint8) for i in range(2 * MAX_FRAMES)]
    with Image.open(io.BytesIO(gif_bytes(numbered))) as image:
        assert image.n_frames == MAX_FRAMES  # type: ignore[attr-defined]
        image.seek(MAX_FRAMES - 1)
        assert abs(np.asarray(image.convert("RGB")).astype(int) - (2 * MAX_FRAMES - 1) % 256).max() <= 2


def test_frames_that_are_no_pictures_are_refused() -> None:
    with pytest.raises(EnvironmentRuleError, match="at least one frame, got none"):
        gif_bytes([])
    with pytest.raises(EnvironmentRuleError, match=r"shape \(height, width, 3\), got float64 \(2, 2\)"):
        gif_bytes([np.zeros((2, 2))])  # type: ignore[list-item]

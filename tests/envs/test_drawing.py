"""Pictures of grids: sizes, colours, and that everything asked for is there."""

import numpy as np
import pytest

from policylab.envs.drawing import CELL_COLOURS, FIGURES, GridLike, draw_grid, value_colours
from policylab.envs.grids.gridworld import GridWorldEnv
from policylab.errors import UnknownNameError


def centre(picture: np.ndarray, row: int, column: int, *, cell_px: int = 48) -> list[int]:
    return picture[row * cell_px + cell_px // 2, column * cell_px + cell_px // 2].tolist()


def test_cells_have_the_colour_of_their_kind() -> None:
    picture = draw_grid([["free", "wall"], ["goal", "pit"]], cell_px=20)
    assert picture.shape == (41, 41, 3)
    assert picture.dtype == np.uint8
    kinds = {(0, 0): "free", (0, 1): "wall", (1, 0): "goal", (1, 1): "pit"}
    for (row, column), kind in kinds.items():
        assert tuple(centre(picture, row, column, cell_px=20)) == CELL_COLOURS[kind]


def test_cells_may_be_colours() -> None:
    colours = value_colours([[0.0, 0.5], [1.0, np.nan]])
    assert colours.shape == (2, 2, 3)
    picture = draw_grid(colours)
    assert centre(picture, 0, 0) == colours[0, 0].tolist()
    assert centre(picture, 1, 1) == [232, 232, 232]
    assert np.array_equal(draw_grid([[tuple(cell) for cell in row] for row in colours.tolist()]), picture)


def test_the_value_scale_grows_brighter() -> None:
    brightness = value_colours(np.linspace(-3, 8, 50)).astype(int) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) > 0).all()


def test_the_value_scale_can_be_fixed() -> None:
    assert value_colours([2.0], low=2.0, high=3.0).tolist() == value_colours([0.0, 1.0])[:1].tolist()
    assert value_colours([9.0], low=2.0, high=3.0).tolist() == value_colours([0.0, 1.0])[1:].tolist()


@pytest.mark.parametrize("values", [[1.0, 1.0], [np.nan, np.nan], [np.inf, -np.inf], []])
def test_degenerate_values_have_colours(values: list[float]) -> None:
    assert value_colours(values).shape == (len(values), 3)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_leaves_its_mark_inside_its_cell(name: str) -> None:
    plain = draw_grid([["free"] * 3] * 3)
    drawn = draw_grid([["free"] * 3] * 3, figures=[(name, (1, 1))])
    changed = np.argwhere((plain != drawn).any(axis=2))
    reach = 96 if name.endswith(("_right", "_down", "_corner")) and name.startswith("wall") else 48
    assert len(changed) > 5
    assert changed.min() >= 48
    assert changed.max() <= 48 + reach


@pytest.mark.parametrize("faint", [False, True])
def test_arrows_and_labels_are_drawn(faint: bool) -> None:
    plain = draw_grid([["free"] * 2])
    for extra in ({"arrows": {(0, 1): [(0, 1)]}}, {"arrows": {(0, 1): [(0, 0), (-1, 0)]}}, {"labels": {(0, 1): "8.1"}}):
        changed = np.argwhere((plain != draw_grid([["free"] * 2], faint=faint, **extra)).any(axis=2))
        assert changed[:, 1].min() > 48


def test_arrows_point_where_they_should() -> None:
    plain = draw_grid([["free"]])
    for move, axis, sign in (((-1, 0), 0, -1), ((1, 0), 0, 1), ((0, -1), 1, -1), ((0, 1), 1, 1)):
        inked = np.argwhere((plain != draw_grid([["free"]], arrows={(0, 0): [move]})).any(axis=2))
        # The head is broad, so the ink gathers on its side of the cell.
        across = inked[np.abs(inked[:, 1 - axis] - 24) > 3]
        assert np.sign(across[:, axis].mean() - 24) == sign


def test_the_picture_is_the_callers_own() -> None:
    picture = draw_grid([["free"]])
    picture[:] = 0
    assert draw_grid([["free"]]).any()


def test_pictures_are_reproducible() -> None:
    env = GridWorldEnv(wind=[0, 1, 2, 0], render_mode="rgb_array")
    env.reset(seed=0)
    assert np.array_equal(env.render(), env.render())


def test_unknown_kinds_and_figures_are_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown kind of cell 'wal'; did you mean 'wall'"):
        draw_grid([["wal"]])
    with pytest.raises(UnknownNameError, match="unknown figure 'dog'"):
        draw_grid([["free"]], figures=[("dog", (0, 0))])


def test_grid_environments_are_grid_like() -> None:
    env = GridWorldEnv()
    assert isinstance(env, GridLike)
    assert env.grid_shape == (3, 4)
    assert env.cell_of(0) == (0, 0)
    assert env.cell_kinds()[1] == ["free", "wall", "free", "pit"]

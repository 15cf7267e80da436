"""Thermal networks against closed-form responses of RC circuits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.buildings.thermal import House, ThermalNetwork

positive = st.floats(1e-2, 1e2)


@settings(max_examples=30, deadline=None)
@given(capacity=positive, loss=positive, start=st.floats(-20, 40), outdoor=st.floats(-20, 40), heat=st.floats(-50, 50))
def test_one_node_answers_as_the_exponential(
    capacity: float, loss: float, start: float, outdoor: float, heat: float
) -> None:
    """T(t) = T_end + (T_0 - T_end) exp(-t g / C), whatever the step."""
    network = ThermalNetwork.of([capacity], to_outside=[loss])
    end = outdoor + heat / loss
    for step_s in (0.01, 1.0, 500.0):
        A, B = network.over(step_s)
        after = A[0, 0] * start + B[0] @ [outdoor, heat]
        assert after == pytest.approx(end + (start - end) * math.exp(-step_s * loss / capacity), rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(c_1=positive, c_2=positive, g_1=positive, g_2=positive, g_12=positive)
def test_two_nodes_have_the_eigenvalues_of_the_quadratic(
    c_1: float, c_2: float, g_1: float, g_2: float, g_12: float
) -> None:
    network = ThermalNetwork.of([c_1, c_2], to_outside=[g_1, g_2], between=[[0.0, g_12], [g_12, 0.0]])
    trace = -(g_1 + g_12) / c_1 - (g_2 + g_12) / c_2
    determinant = (g_1 * g_2 + g_12 * (g_1 + g_2)) / (c_1 * c_2)
    root = math.sqrt(trace * trace - 4.0 * determinant)
    fast = -2.0 / (trace - root)
    slow = 1.0 / (determinant * fast)  # the product of the rates is the determinant
    assert network.time_constants_s == pytest.approx([fast, slow], rel=1e-6)


def test_two_nodes_relax_along_their_modes() -> None:
    """Analytic solution: each eigenvector decays with its own time constant, about the steady state."""
    network = House().two_nodes()
    inputs = [-5.0, 8000.0, 1500.0]
    end = network.steady_state(inputs)
    start = np.array([20.0, 15.0])
    values, vectors = np.linalg.eig(network.A)
    amplitudes = np.linalg.solve(vectors, start - end)
    for step_s in (60.0, 900.0, 86_400.0):
        A, B = network.over(step_s)
        expected = end + vectors @ (np.exp(values * step_s) * amplitudes)
        assert A @ start + B @ inputs == pytest.approx(expected, rel=1e-9)


def test_two_half_steps_are_one_step() -> None:
    network = House().two_nodes()
    (A, B), (A_2, B_2) = network.over(450.0), network.over(900.0)
    assert np.allclose(A @ A, A_2, rtol=1e-12, atol=0.0)
    assert np.allclose(A @ B + B, B_2, rtol=1e-12, atol=0.0)


def test_the_steady_state_balances_heat() -> None:
    """Heat put into the air leaves by windows and, through the wall, by the insulation."""
    house = House()
    air, wall = house.two_nodes().steady_state([0.0, 13_000.0, 0.0]).tolist()
    inner = house.wall_area_m2 * house.surface_inside
    assert house.window_w_per_k * air + inner * (air - wall) == pytest.approx(13_000.0)
    assert air > wall > 0.0


def test_the_house_is_that_of_the_example() -> None:
    # Numbers derived from sldemo_househeat's data file.
    house = House()
    assert house.wall_area_m2 == pytest.approx(960.9, abs=0.05)
    assert 1.0 / house.loss_w_per_k == pytest.approx(1.537e-3, abs=5e-7)
    assert house.air_kg == pytest.approx(1778.4, abs=0.05)
    assert house.air_capacity == pytest.approx(1.788e6, abs=500.0)
    assert house.loss_w_per_k * 20.0 == pytest.approx(13.0e3, abs=50.0)
    air_only = ThermalNetwork.of([house.air_capacity], to_outside=[house.loss_w_per_k])
    assert air_only.time_constants_s[0] / 3600.0 == pytest.approx(0.763, abs=5e-4)


def test_the_leaf_makes_the_house_slow() -> None:
    house = House()
    fast, slow = (house.two_nodes().time_constants_s / 3600.0).tolist()
    assert fast < 0.05
    assert slow == pytest.approx(20.8, abs=0.05)
    # Air and leaf move as one, so that one node with both capacities is nearly as slow.
    assert house.one_node().time_constants_s[0] / 3600.0 == pytest.approx(slow, rel=0.02)

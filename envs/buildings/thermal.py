"""Buildings as networks of thermal resistors and capacitors, discretised exactly.

| symbol | meaning | unit |
|---|---|---|
| x | temperature of each node (air first, then mass) | °C, shape (n,) |
| C | heat capacity of each node | J/K, shape (n,) |
| G | conductance between two nodes, 1 / resistance | W/K, shape (n, n), symmetric |
| g | conductance from each node to the outside | W/K, shape (n,) |
| u | inputs: outdoor temperature, then the heat put into each node | °C and W, shape (n + 1,) |

Every node obeys ``C_i dx_i/dt = sum_j G_ij (x_j - x_i) + g_i (x_out - x_i) + q_i``, that is ``dx/dt = A x + B u``.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

AIR_DENSITY = 1.225  # kg/m³ (sldemo_househeat)
AIR_HEAT = 1005.4  # J/(kg K) (sldemo_househeat)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ThermalNetwork:
    """A linear thermal model ``dx/dt = A x + B u``; see the module's symbol table.

    >>> leaky = ThermalNetwork.of([1000.0], to_outside=[10.0])
    >>> leaky.time_constants_s.tolist(), leaky.steady_state([5.0, 200.0]).tolist()
    ([100.0], [25.0])
    """

    A: NDArray[np.float64]
    B: NDArray[np.float64]

    @classmethod
    def of(cls, capacity: ArrayLike, *, to_outside: ArrayLike, between: ArrayLike | None = None) -> ThermalNetwork:
        """Return the model of a network.

        Args:
            capacity: C, all > 0.
            to_outside: g, all >= 0, at least one > 0 in each connected part.
            between: G with a zero diagonal; None for a single node.
        """
        c, g = np.asarray(capacity, dtype=float), np.asarray(to_outside, dtype=float)
        G = np.zeros((c.size, c.size)) if between is None else np.asarray(between, dtype=float)
        A = (G - np.diag(G.sum(axis=1) + g)) / c[:, None]
        return cls(A, np.column_stack([g, np.eye(c.size)]) / c[:, None])

    @property
    def time_constants_s(self) -> NDArray[np.float64]:
        """The times in which each mode decays to 1/e, seconds, the fastest first, shape (n,)."""
        # A is similar to a symmetric matrix (scale x by the root of C), so its eigenvalues are real.
        constants: NDArray[np.float64] = np.sort(-1.0 / np.linalg.eigvals(self.A).real)
        return constants

    def steady_state(self, inputs: ArrayLike) -> NDArray[np.float64]:
        """Return the temperatures that constant ``inputs`` lead to, shape (n,)."""
        balance: NDArray[np.float64] = np.linalg.solve(-self.A, self.B @ np.asarray(inputs, dtype=float))
        return balance

    def over(self, step_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (A_d, B_d) with ``x(t + step) = A_d x(t) + B_d u`` for inputs held during the step: exact.

        Source: the exponential of the augmented matrix [[A, B], [0, 0]] (Van Loan, IEEE TAC 23, 1978).
        """
        n, m = self.B.shape
        augmented = np.zeros((n + m, n + m))
        augmented[:n, :n], augmented[:n, n:] = self.A, self.B
        transition = expm(augmented * step_s)
        return transition[:n, :n].copy(), transition[:n, n:].copy()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A detached house: geometry and materials, from which its thermal network follows.

    The defaults are those of MathWorks' example sldemo_househeat; the surface coefficients, density and heat of the
    wall are those of its Simscape variant. There the whole wall stores heat, which takes five days to warm through;
    here only the leaf inside the insulation does.

    >>> house = House()
    >>> round(house.wall_area_m2, 1), round(house.air_kg, 1), round(1e3 / house.loss_w_per_k, 3)
    (960.9, 1778.4, 1.537)
    """

    length_m: float = 30.0
    width_m: float = 10.0
    height_m: float = 4.0
    roof_pitch_deg: float = 40.0
    window_area_m2: float = 6.0
    wall_conductivity: float = 0.038
    """W/(m K), insulation of glass wool."""
    wall_thickness_m: float = 0.2
    window_conductivity: float = 0.78
    """W/(m K), glass."""
    window_thickness_m: float = 0.01
    surface_inside: float = 24.0
    """W/(m² K), between the room air and the wall."""
    surface_outside: float = 34.0
    """W/(m² K), between the wall and the outdoor air."""
    leaf_thickness_m: float = 0.03
    """Thickness of the layer inside the insulation that stores heat."""
    leaf_density: float = 1920.0
    """kg/m³, brick."""
    leaf_heat: float = 835.0
    """J/(kg K), brick."""

    @property
    def wall_area_m2(self) -> float:
        """Area of walls, roof and gables without the windows, by the example's own formula."""
        pitch = math.radians(self.roof_pitch_deg)
        walls = 2.0 * (self.length_m + self.width_m) * self.height_m
        roof = 2.0 * self.width_m * self.length_m / math.cos(pitch / 2.0)
        return walls + roof + math.tan(pitch) * self.width_m - self.window_area_m2

    @property
    def air_kg(self) -> float:
        """Mass of the air under the roof."""
        attic = math.tan(math.radians(self.roof_pitch_deg)) * self.width_m * self.length_m
        return (self.length_m * self.width_m * self.height_m + attic) * AIR_DENSITY

    @property
    def air_capacity(self) -> float:
        """Heat capacity of the air, J/K."""
        return self.air_kg * AIR_HEAT

    @property
    def leaf_capacity(self) -> float:
        """Heat capacity of the storing layer, J/K."""
        return self.wall_area_m2 * self.leaf_thickness_m * self.leaf_density * self.leaf_heat

    @property
    def window_w_per_k(self) -> float:
        """Conductance of the windows, W/K."""
        return self.window_area_m2 * self.window_conductivity / self.window_thickness_m

    @property
    def insulation_w_per_k(self) -> float:
        """Conductance of the insulation alone, W/K."""
        return self.wall_area_m2 * self.wall_conductivity / self.wall_thickness_m

    @property
    def loss_w_per_k(self) -> float:
        """Heat lost per degree through insulation and windows, surface resistances left out as in the example, W/K."""
        return self.insulation_w_per_k + self.window_w_per_k

    def one_node(self) -> ThermalNetwork:
        """Return the 1R1C model: air and leaf at one temperature, ``(C_air + C_leaf) dT/dt = loss (T_out - T) + q``."""
        return ThermalNetwork.of([self.air_capacity + self.leaf_capacity], to_outside=[self.loss_w_per_k])

    def two_nodes(self) -> ThermalNetwork:
        """Return the 2R2C model: air to leaf through the inner surface, leaf to outside through the insulation.

        The windows let heat pass from the air straight to the outside. Inputs: outdoor temperature, heat into the
        air, heat into the leaf.
        """
        inner = self.wall_area_m2 * self.surface_inside
        outer = 1.0 / (1.0 / self.insulation_w_per_k + 1.0 / (self.wall_area_m2 * self.surface_outside))
        return ThermalNetwork.of(
            [self.air_capacity, self.leaf_capacity],
            to_outside=[self.window_w_per_k, outer],
            between=[[0.0, inner], [inner, 0.0]],
        )

"""Buildings against closed forms of RC circuits and published derived numbers; dialogs against exact counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import gymnasium as gym

from policylab.envs.baselines import make_baseline
from policylab.envs.buildings.thermal import House, ThermalNetwork
from policylab.envs.planners import evaluate_policy, start_value
from policylab.experiments.evaluation import rule_actions
from policylab.experiments.verify.exact import optimum, table
from policylab.experiments.verify.rows import Check

HOUSEHEAT = "MathWorks sldemo_househeat_data.m, derived quantities"
VOICEMAIL = "policylab/Voicemail-v0"
SLOT_FILLING = "policylab/SlotFilling-v0"


def rule_return(env_id: str, name: str) -> float:
    """Return the exact value of a registered baseline of an environment with a table."""
    env, mdp = gym.make(env_id), table(env_id)
    actions = rule_actions(make_baseline(env_id, name, env=env), mdp, space=env.observation_space)
    assert actions is not None
    return start_value(mdp, evaluate_policy(mdp, actions, discount=1.0, horizon=mdp.max_episode_steps))


def ask_confirm_submit(*, n_slots: int, word_error: float, yes_no_error: float, max_turns: int) -> float:
    """Return the value of asking and confirming slot after slot, by the negative binomial number of rounds."""
    right = 1.0 - word_error
    yes = right * (1.0 - yes_no_error) + word_error * yes_no_error
    success = (right * (1.0 - yes_no_error) / yes) ** n_slots
    ending = success * 2.0 * max_turns - (1.0 - success) * max_turns
    value, submitted = 0.0, 0.0
    for rounds in range(n_slots, (max_turns - 1) // 2 + 1):
        chance = math.comb(rounds - 1, n_slots - 1) * yes**n_slots * (1.0 - yes) ** (rounds - n_slots)
        value += chance * (ending - 2.0 * rounds)
        submitted += chance
    return value - (1.0 - submitted) * (2.0 * max_turns - 1.0)


def _house_checks() -> Iterator[Check]:
    house = House()
    air = ThermalNetwork.of([house.air_capacity], to_outside=[house.loss_w_per_k])
    for name, published, measured in (
        ("area of walls and roof, m²", "960.9", house.wall_area_m2),
        ("mass of the air, kg", "1778.4", house.air_kg),
        ("resistance of the envelope, K/W", "0.001537", 1.0 / house.loss_w_per_k),
        ("heat capacity of the air, MJ/K", "1.788", house.air_capacity / 1e6),
        ("time constant of the air alone, h", "0.763", float(air.time_constants_s[0]) / 3600.0),
    ):
        yield Check(
            name=f"Building: {name}",
            published=published,
            source=HOUSEHEAT,
            measure=lambda measured=measured: measured,  # type: ignore[misc]
        )
    yield Check(
        name="Building: share of a step response after one time constant",
        published="0.6321205588",
        source="RC circuit, 1 - 1/e",
        measure=lambda: float(air.over(float(air.time_constants_s[0]))[1][0, 0]),
    )
    ladder = ThermalNetwork.of([1.0, 1.0], to_outside=[1.0, 0.0], between=[[0.0, 1.0], [1.0, 0.0]])
    yield Check(
        name="Building: slow time constant of an RC ladder of two equal sections, RC",
        published="2.6180339887",
        source="RC ladder, 2 / (3 - sqrt(5))",
        measure=lambda: float(ladder.time_constants_s[1]),
    )


CHECKS: tuple[Check, ...] = (
    *_house_checks(),
    Check(
        name="Voicemail: optimal return in ten turns",
        published="-2.97166644",
        source="recursion over all answer histories in exact fractions",
        measure=lambda: optimum(table(VOICEMAIL), horizon=100),
    ),
    Check(
        name="Voicemail: return of asking until one answer leads by two",
        published="-10.25221072",
        source="all 512 strings of answers, in exact fractions",
        measure=lambda: rule_return(VOICEMAIL, "lead_of_two"),
    ),
    Check(
        name="Slot filling: return of ask, confirm, submit",
        published=f"{ask_confirm_submit(n_slots=3, word_error=0.3, yes_no_error=0.05, max_turns=20):.9f}",
        source="negative binomial number of rounds",
        measure=lambda: rule_return(SLOT_FILLING, "ask_confirm_submit"),
    ),
    Check(
        name="Slot filling: return of ask, submit",
        published="-2.42",
        source="-3 + 0.7^3 x 40 - (1 - 0.7^3) x 20",
        measure=lambda: rule_return(SLOT_FILLING, "ask_submit"),
    ),
)
"""The house of the HVAC environments, and the dialogs with exact tables."""

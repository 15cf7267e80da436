"""Which part of a reinforcement-learning system has drifted, and which changes only follow from that.

| layer | role | what is compared |
|---|---|---|
| start | cause | the first observations of episodes |
| policy | cause | actions given observations |
| transition | cause | next observations and terminations given observations and actions |
| reward | cause | rewards given observations, actions and what followed |
| observation | symptom | all observations |
| action | symptom | the mix of actions |
| exploration | symptom | how unsure the policy was: the mean of 1 - propensity (of a density: of -ln) |
| unseen | symptom | observations that the baseline never had, or nothing near them |
| return | symptom | undiscounted returns of whole episodes |
| length | symptom | their lengths |

A cause is what changed by itself; symptoms follow from causes, through any mixture of them. Observations that repeat
are compared within strata (`policylab.monitoring.causes.strata`), others through nearest neighbours
(`policylab.monitoring.causes.matching`). Of the ends of episodes is compared what both sides know. A layer has drifted
if chance does not explain the difference, at a false-alarm rate for all layers together, and if the difference matters:
its effect exceeds a threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pydantic import Field

from policylab.config import Settings
from policylab.errors import UserError
from policylab.monitoring.causes.comparison import Role
from policylab.monitoring.causes.conditional import by_matching, by_strata, repeating_states
from policylab.monitoring.causes.marginal import marginal
from policylab.monitoring.causes.steps import Steps, alike

MIN_STEPS = 100
LAYERS = (
    "start", "policy", "transition", "reward", "observation", "action", "exploration", "unseen", "return", "length",
)  # fmt: skip


class DriftSettings(Settings):
    """When a layer has drifted."""

    false_alarm_rate: float = Field(0.003, gt=0.0, lt=1.0, description="of all layers together, without any drift")
    effect_threshold: float = Field(
        0.1,
        ge=0.0,
        description="least effect that matters: 0 for equal distributions, 1 for ones with nothing in common",
    )
    unseen_threshold: float = Field(0.01, ge=0.0, le=1.0, description="share of unseen observations that matters")


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer's comparison.

    Attributes:
        name: see the module's table.
        role: whether it can change by itself.
        effect: how large the change is: a distance of distributions in [0, 1]; of ``exploration`` a difference (of
            densities in nats, at least 0), of ``unseen`` a share.
        p_value: how often chance alone does as much.
        drifted: the verdict.
        detail: what was compared, in words.
    """

    name: str
    role: Role
    effect: float
    p_value: float
    drifted: bool
    detail: str


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """All layers, and what they mean together.

    Attributes:
        layers: those that could be compared.
        causes: names of the causes that drifted.
        verdict: a sentence.
    """

    layers: tuple[Layer, ...]
    causes: tuple[str, ...]
    verdict: str

    @property
    def drifted(self) -> bool:
        """Whether any layer has."""
        return any(layer.drifted for layer in self.layers)


def diagnose(baseline: Steps, window: Steps, *, settings: DriftSettings | None = None) -> Diagnosis:
    """Return which layers of ``window`` differ from ``baseline``.

    Raises:
        UserError: the two are of different shapes, or there are too few steps.
    """
    chosen = settings or DriftSettings()
    for name in ("observation", "action"):
        shapes = [getattr(side, name).shape[1:] for side in (baseline, window)]
        if shapes[0] != shapes[1]:
            raise UserError(f"the {name}s have shape {shapes[1]} in the window and {shapes[0]} in the baseline")
    if min(len(baseline), len(window)) < MIN_STEPS:
        raise UserError(f"at least {MIN_STEPS} steps of each are needed, got {len(baseline)} and {len(window)}")
    baseline, window = alike(baseline, window)
    states = repeating_states(baseline, window)
    conditional = by_matching(baseline, window) if states is None else by_strata(baseline, window, states=states)
    found = {**conditional, **marginal(baseline, window)}
    rate = chosen.false_alarm_rate / len(found)
    layers = []
    for name in LAYERS:
        if name in found:
            one, least = found[name], chosen.unseen_threshold if name == "unseen" else chosen.effect_threshold
            drifted = one.p_value < rate and one.effect > least
            layers.append(Layer(name, one.role, one.effect, one.p_value, drifted, one.detail))
    causes = tuple(layer.name for layer in layers if layer.drifted and layer.role == "cause")
    return Diagnosis(tuple(layers), causes, _verdict(layers, causes))


_WORDS = {
    "start": "episodes start elsewhere",
    "policy": "the policy acts differently in the same situations",
    "transition": "the environment reacts differently to the same actions",
    "reward": "the same steps are rewarded differently",
}


def _verdict(layers: Sequence[Layer], causes: tuple[str, ...]) -> str:
    symptoms = [layer.name for layer in layers if layer.drifted and layer.role == "symptom"]
    if causes:
        follows = f"; {', '.join(symptoms)} may follow from it" if symptoms else ""
        return " and ".join(_WORDS[cause] for cause in causes) + follows
    if symptoms:
        return (
            f"{', '.join(symptoms)} drifted, but no cause was found: something that is not recorded, or too few steps"
        )
    return "no drift"

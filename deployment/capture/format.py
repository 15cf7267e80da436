"""The capture format: what an endpoint records of every decision, and of the rewards reported for it.

Both are JSON lines in Amazon SageMaker's formats (Developer Guide, "Data capture" and "Ingest ground truth labels"),
so that its tools read them; the key ``policylab`` holds what off-policy evaluation needs besides.

    FOLDER/captured/ENDPOINT/VARIANT/yyyy/mm/dd/hh/*.jsonl       one line per decision, dated by the decision
    FOLDER/captured-parquet/ENDPOINT/...                        or so (`policylab.deployment.capture.parquet`)
    FOLDER/ground-truth/ENDPOINT/yyyy/mm/dd/hh/*.jsonl           one line per reward, dated by its arrival

A captured line (here on several)::

    {"captureData": {
      "endpointInput":  {"observedContentType": "application/json", "mode": "INPUT", "encoding": "JSON", "data": "3"},
      "endpointOutput": {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON", "data": "1"}},
     "eventMetadata": {"eventId": "...", "inferenceId": "only if given", "inferenceTime": "2026-01-31T17:25:49Z"},
     "eventVersion": "0",
     "policylab": {...the fields of `DecisionFacts`}}

``data`` is the observation and the action as `policylab.agents.space_json.value_to_json` writes them. A reward line::

    {"groundTruthData": {"data": "1.0", "encoding": "JSON"}, "eventMetadata": {"eventId": "..."}, "eventVersion": "0"}

Its ``eventId`` is the decision id, or the inference id if the client gave one. A decision may have several rewards;
they add up. The key ``policylab`` holds the `EpisodeEnd` of an episode's last decision, if the client told it. A
request of several observations makes one line for each of them, whose decision ids end in ``-0``, ...

What is not in the files may have been served too: ``sampling_probability`` is the chance that a decision was kept, and
``n_dropped`` counts those lost because the disk was slow or full, since the endpoint was started (the
files of each start are their own).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, ValidationError, model_validator

from policylab.config import Settings
from policylab.errors import UserError

FORMAT_VERSION: Literal[1] = 1
CAPTURED = "captured"
CAPTURED_PARQUET = "captured-parquet"
GROUND_TRUTH = "ground-truth"
JSON_TYPE = "application/json"
ROUNDING = 1e-5
"""Of the logarithm of a probability of 1 in single precision."""
MAX_REWARD = 1e150
"""Squares of larger numbers are no numbers."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Source = Literal["policy", "fallback"]
Assignment = Literal["random", "session", "target"]


class ShadowFacts(Settings):
    """What a shadow, or a version that is valued before it acts, would have done with one decision."""

    variant: str
    policy_version: str = Field(description="digest of its bundle")
    action: Any = Field(description="what it would have answered")
    log_probability: float | None = Field(
        description="of the action that was taken, under the shadow's policy and the same mask; null is minus infinity"
    )


class DecisionFacts(Settings):
    """What ``policylab`` holds in a captured line.

    The probability with which the logged action was chosen, given its observation, is
    ``variant_probability * exp(log_propensity)`` by this variant; an estimator either sums over variants or conditions
    on the one that answered. A session keeps its variant: within one ``episode`` the variant was drawn once.
    """

    format_version: Literal[1] = FORMAT_VERSION
    endpoint: str
    variant: str
    policy_version: str = Field(description="digest of the bundle that answered")
    variant_probability: Probability = Field(description="chance of this variant at the moment it was assigned")
    assignment: Assignment = Field(
        description="random: drawn for this request; session: drawn when its session began; target: named by the "
        "client, which is no random assignment and must be left out of comparisons"
    )
    source: Source = Field(description="fallback: the endpoint's fallback action was answered, not the policy's")
    exploration: bool = Field(description="false: the variant answers with its policy's deterministic action")
    propensity: float = Field(
        ge=0.0, description="of the action given observation, mask and variant, after masking and clipping"
    )
    log_propensity: float
    propensity_kind: Literal["probability", "density"] = Field(
        description="density: per unit of the continuous action; where it was clipped, a probability in that component"
    )
    mask: tuple[bool, ...] | None = Field(default=None, description="allowed actions, if the request named them")
    episode: str | None = Field(default=None, description="as the client named it, else its session")
    step: int | None = Field(
        default=None, ge=0, description="within the episode, as the client counted, else per session"
    )
    shadows: tuple[ShadowFacts, ...] = ()
    sampling_probability: float = Field(gt=0.0, le=1.0, description="chance that this decision was captured")
    n_dropped: int = Field(
        default=0, ge=0, description="decisions lost since the endpoint was started, of whichever variant"
    )

    @model_validator(mode="after")
    def _probable(self) -> Self:
        if self.propensity_kind == "probability" and self.log_propensity > ROUNDING:
            raise ValueError(f"log_propensity {self.log_propensity:g} is of no probability; it must be at most 0")
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class CapturedDecision:
    """One captured line, read back."""

    decision_id: str
    inference_id: str | None
    time_utc: datetime
    observation: Any
    action: Any
    facts: DecisionFacts

    @property
    def content(self) -> str:
        """What was decided: the same in every copy of the line."""
        return repr((self.observation, self.action, self.facts.log_propensity))

    @property
    def reward_id(self) -> str:
        """The id under which a reward of this decision is reported: the inference id, else the decision id."""
        return self.inference_id or self.decision_id


class EpisodeEnd(Settings):
    """How an episode ended with a decision, as the client that played it saw."""

    terminated: StrictBool = Field(default=False, description="the task was over: nothing follows that could be earned")
    truncated: StrictBool = Field(default=False, description="it was cut off, by a limit of time for instance")
    next_observation: Any = Field(
        default=None, description="what was observed after the last action, as JSON; null: not told"
    )

    @model_validator(mode="after")
    def _an_end(self) -> Self:
        if not (self.terminated or self.truncated):
            raise ValueError(
                "next_observation needs terminated or truncated; within an episode it is the next decision's"
            )
        if not self.terminated and self.next_observation is None:
            raise ValueError("truncated needs next_observation: what could still be earned depends on it")
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Reward:
    """One reward line, read back; ``end`` is there if the episode ended with the decision and the client told it."""

    decision_id: str
    reward: float
    end: EpisodeEnd | None = None

    @property
    def usable(self) -> bool:
        """Whether one can compute with it: it is a number within ±`MAX_REWARD`."""
        return abs(self.reward) <= MAX_REWARD


def captured_line(
    *,
    decision_id: str,
    inference_id: str | None,
    time_s: float,
    observation: Any,
    action: Any,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the line of one decision; ``observation`` and ``action`` as JSON values, ``facts`` as `DecisionFacts`."""
    metadata = {"eventId": decision_id, "inferenceTime": timestamp(time_s)}
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    return {
        "captureData": {
            "endpointInput": _part("INPUT", observation),
            "endpointOutput": _part("OUTPUT", action),
        },
        "eventMetadata": metadata,
        "eventVersion": "0",
        "policylab": dict(facts),
    }


def line_of(decision: CapturedDecision) -> bytes:
    """Return the line of a decision that was read back, such as from Parquet."""
    line = captured_line(
        decision_id=decision.decision_id,
        inference_id=decision.inference_id,
        time_s=decision.time_utc.timestamp(),
        observation=decision.observation,
        action=decision.action,
        facts=decision.facts.model_dump(mode="json"),
    )
    return json.dumps(line).encode() + b"\n"


def _part(mode: str, value: Any) -> dict[str, str]:
    return {"observedContentType": JSON_TYPE, "mode": mode, "encoding": "JSON", "data": json.dumps(value)}


def reward_line(decision_id: str, *, reward: float, end: EpisodeEnd | None = None) -> dict[str, Any]:
    """Return the ground-truth line of one reward, and of the end of its episode.

    >>> reward_line("a", reward=1.0)["groundTruthData"]
    {'data': '1.0', 'encoding': 'JSON'}
    """
    line = {
        "groundTruthData": {"data": json.dumps(reward), "encoding": "JSON"},
        "eventMetadata": {"eventId": decision_id},
        "eventVersion": "0",
    }
    return line if end is None else {**line, "policylab": end.model_dump()}


def timestamp(time_s: float) -> str:
    """Return seconds since 1970 as SageMaker writes times.

    >>> timestamp(1644859549.7)
    '2022-02-14T17:25:49Z'
    """
    return _formatted(int(time_s), "%Y-%m-%dT%H:%M:%SZ")


def hour_folder(time_s: float) -> str:
    """Return the folder of an hour.

    >>> hour_folder(1644859549.7)
    '2022/02/14/17'
    """
    return _formatted(int(time_s), "%Y/%m/%d/%H")


@functools.lru_cache(maxsize=16)  # thousands of decisions share a second
def _formatted(second: int, pattern: str) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(pattern)


def parse_captured(line: str | bytes) -> CapturedDecision:
    """Return what one captured line says.

    Raises:
        UserError: the line is none that an endpoint of this policylab wrote.
    """
    try:
        record = json.loads(line)
        metadata, data = record["eventMetadata"], record["captureData"]
        time, inference_id = datetime.fromisoformat(metadata["inferenceTime"]), metadata.get("inferenceId")
        return CapturedDecision(
            decision_id=_identifier(metadata["eventId"]),
            inference_id=None if inference_id is None else _identifier(inference_id),
            time_utc=time if time.tzinfo is not None else time.replace(tzinfo=UTC),
            observation=json.loads(data["endpointInput"]["data"]),
            action=json.loads(data["endpointOutput"]["data"]),
            facts=DecisionFacts.model_validate(record["policylab"]),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"captured line: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"not a line of the capture format ({error!r:.80}): {line[:80]!r}") from error


def parse_reward(line: str | bytes) -> Reward:
    """Return what one ground-truth line says.

    Raises:
        UserError: it is no line with a number.
    """
    try:
        record = json.loads(line)
        end = record.get("policylab")
        return Reward(
            decision_id=_identifier(record["eventMetadata"]["eventId"]),
            reward=float(record["groundTruthData"]["data"]),
            end=None if end is None else EpisodeEnd.model_validate(end),
        )
    except ValidationError as error:
        raise UserError(f"reward line: {error.errors(include_url=False)[0]['msg']}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"not a reward line ({error!r:.80}): {line[:80]!r}") from error


def _identifier(value: Any) -> str:
    """Return an id as text, whether it was written as text or as a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"an id must be text, got {type(value).__name__}")
    return str(value)

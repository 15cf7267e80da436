"""What goes into an endpoint and what comes out: requests, decisions, and refusals."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from policylab.agents.policy import Mask
from policylab.deployment.capture.format import FORMAT_VERSION, Assignment, Source
from policylab.errors import UserError

NEW_SESSION = "NEW_SESSION"
"""In place of a session's id: the endpoint makes one and tells it with the answer."""


class Refusal(UserError):
    """A request that gets no decision; `kind` says why."""

    def __init__(self, message: str, *, kind: RefusalKind, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


RefusalKind = Literal[
    "invalid",  # the request breaks a rule of the endpoint
    "observation",  # the request is sound, but its observation, mask or body is not of this policy
    "too_large",  # body or batch over the limit
    "unsupported",  # a content type or encoding that is not read
    "late",  # the body did not arrive in time
    "unauthorised",  # no token, or a wrong one
    "missing",  # no such page
    "method",  # the page does not take this method
    "throttled",  # too many requests a second
    "busy",  # too many requests under way, or the endpoint is stopping
    "conflict",  # what is to be made is there
    "not_ready",  # the model is being loaded
    "full",  # no memory for the model
    "failed",  # the policy failed, and there is no fallback
]


class DecisionRequest(msgspec.Struct, frozen=True):
    """One request for decisions.

    Attributes:
        observations: raw observations of the policies' space, at least one.
        masks: allowed actions for each observation; None allows all.
        inference_id: the client's name of this request. A second request of the same id gets the same answer.
        retry_key: what else tells a retry, such as the id that boto3 gives to all attempts of one call.
        session_id: keeps requests on one variant; `NEW_SESSION` begins one.
        target_variant: the variant to ask, whatever its weight.
        episode: the episode the observations are of, as the client names it.
        step: number of the first observation in its episode, counted by the client.
    """

    observations: tuple[Any, ...]
    masks: tuple[Mask | None, ...] | None = None
    inference_id: str | None = None
    retry_key: str | None = None
    session_id: str | None = None
    target_variant: str | None = None
    episode: str | None = None
    step: int | None = None


class Decision(msgspec.Struct, frozen=True):
    """One decision, with all that is needed to judge it later.

    Attributes:
        action: as the environment takes it.
        propensity: probability of the action given observation, mask and variant; for a continuous action a density.
        log_propensity: its logarithm.
        propensity_kind: ``probability`` or ``density``.
        variant: which variant decided.
        variant_probability: chance of that variant when it was assigned.
        assignment: how the variant was found: ``random``, ``session`` or ``target``.
        policy_version: digest of the variant's bundle.
        decision_id: names this decision, also when rewards are reported.
        inference_id: the client's name of the request, if it gave one and the request had one observation.
        source: ``fallback`` if the policy failed or was late.
        exploration: whether the variant draws its actions.
        time_s: when, in seconds since 1970.
        episode: as the client named it, else the session.
        step: number within the episode, if known.
    """

    action: Any
    propensity: float
    log_propensity: float
    propensity_kind: Literal["probability", "density"]
    variant: str
    variant_probability: float
    assignment: Assignment
    policy_version: str
    decision_id: str
    inference_id: str | None
    source: Source
    exploration: bool
    time_s: float
    episode: str | None
    step: int | None

    def facts(self, endpoint: str) -> dict[str, Any]:
        """Return what `policylab.deployment.capture.format.DecisionFacts` takes from here."""
        return {
            "format_version": FORMAT_VERSION,
            "endpoint": endpoint,
            "variant": self.variant,
            "policy_version": self.policy_version,
            "variant_probability": self.variant_probability,
            "assignment": self.assignment,
            "source": self.source,
            "exploration": self.exploration,
            "propensity": self.propensity,
            "log_propensity": self.log_propensity,
            "propensity_kind": self.propensity_kind,
            "episode": self.episode,
            "step": self.step,
        }


class Answer(msgspec.Struct, frozen=True):
    """The decisions of one request, in the order of its observations.

    Attributes:
        decisions: one for each observation.
        new_session: id and time of expiry (seconds since 1970) of the session that was begun, if one was.
    """

    decisions: tuple[Decision, ...]
    new_session: tuple[str, float] | None = None

"""Answers: from decisions to the bytes that a client gets."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces

from policylab.agents.bundle import Bundle
from policylab.agents.space_json import value_to_json
from policylab.deployment.decision import Answer, Decision
from policylab.deployment.http.bodies import CSV, JSON, JSON_LINES, NPY

PIECE = 64
"""Decisions of one piece of a stream: some 20 kB of JSON."""


class Told(msgspec.Struct, frozen=True):
    """What an answer tells of one decision as JSON."""

    action: Any
    propensity: float
    propensity_kind: str
    variant: str
    variant_probability: float
    policy_version: str
    decision_id: str
    source: str


class AnswerWriter:
    """Writes the decisions of one action space.

    Args:
        bundle: whose action space it is.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._space = bundle.action_space
        self._plain = isinstance(self._space, spaces.Discrete)
        self._encode = msgspec.json.Encoder().encode

    def write(self, answer: Answer, *, single: bool, accept: str) -> tuple[bytes, str]:
        """Return body and content type; JSON unless ``accept`` asks for another type that there is."""
        if accept and "*/*" not in accept and JSON not in accept.replace(JSON_LINES, ""):
            if JSON_LINES in accept:
                return b"".join(self.lines(answer, accept=accept)[0]), JSON_LINES
            if CSV in accept:
                return self._csv(answer.decisions), CSV
            if NPY in accept:
                return self._npy(answer.decisions, single=single), NPY
        if single:
            return self._encode(self._told(answer.decisions[0])), JSON
        return self._encode({"decisions": [self._told(one) for one in answer.decisions]}), JSON

    def lines(self, answer: Answer, *, accept: str) -> tuple[Iterator[bytes], str]:
        """Return pieces of a line for each decision, and their type: JSON lines, or CSV if only that is taken."""
        csv = CSV in accept and JSON not in accept and "*/*" not in accept

        def pieces() -> Iterator[bytes]:
            for first in range(0, len(answer.decisions), PIECE):
                some = answer.decisions[first : first + PIECE]
                yield self._csv(some) if csv else b"".join(self._encode(self._told(one)) + b"\n" for one in some)

        return pieces(), CSV if csv else JSON_LINES

    def _action(self, decision: Decision) -> Any:
        return decision.action if self._plain else value_to_json(self._space, decision.action)

    def _told(self, decision: Decision) -> Told:
        return Told(
            decision.action if self._plain else value_to_json(self._space, decision.action),
            decision.propensity,
            decision.propensity_kind,
            decision.variant,
            decision.variant_probability,
            decision.policy_version,
            decision.decision_id,
            decision.source,
        )

    def _csv(self, decisions: Sequence[Decision]) -> bytes:
        """Return a line for each decision: the numbers of its action, propensity, variant, version, decision id."""
        rows = []
        for one in decisions:
            action = np.asarray(self._action(one)).ravel().tolist()
            rows.append(",".join(map(str, [*action, one.propensity, one.variant, one.policy_version, one.decision_id])))
        return ("\n".join(rows) + "\n").encode()

    def _npy(self, decisions: Sequence[Decision], *, single: bool) -> bytes:
        """Return the actions alone, shape (n, ...)."""
        actions = np.array([one.action for one in decisions])
        file = io.BytesIO()
        np.save(file, actions[0] if single else actions, allow_pickle=False)
        return file.getvalue()

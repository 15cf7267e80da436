"""`Admin`: the verbs of a running endpoint besides its decisions."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from pydantic import ValidationError

from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import Variant, load_fleet
from policylab.deployment.guardrails.rollout import Rollout
from policylab.deployment.http import openapi, prometheus
from policylab.deployment.http.reported import take_rewards
from policylab.deployment.policy_server import PolicyServer
from policylab.errors import PolicylabError, StorageError

FIXED = (
    "name",
    "models",
    "asynchronous",
    "serverless",
    "ray_serve",
    "autoscaling",
    "limits",
    "sessions",
    "capture",
    "comparison",
)
"""Sections that hold for as long as the server runs."""


class Admin:
    """Status, weights, updates, rewards and descriptions of one endpoint, as JSON documents in and out.

    Args:
        server: decides.
        rollout: moves its traffic.
    """

    def __init__(self, server: PolicyServer, rollout: Rollout) -> None:
        self.server = server
        self.rollout = rollout

    def status(self, *, draining: bool = False) -> dict[str, Any]:
        """Return how the endpoint stands."""
        server, updating = self.server, self.rollout.state.update is not None
        recorder, capture = server.recorder, server.config.capture
        return {
            "name": server.config.name,
            "status": "Stopping" if draining else "Updating" if updating else "InService",
            "generation": self.rollout.state.generation,
            "variants": [
                _variant(route.variant, generation=route.fleet.generation, share=route.share)
                for route in server.traffic.routes
            ],
            "shadows": [
                {
                    "name": shadow.name,
                    "policy_version": shadow.policy.version,
                    "decisions": shadow.n_decisions,
                    "agreeing": shadow.n_agreeing,
                    "failures": shadow.n_failures,
                    "dropped": shadow.n_dropped,
                }
                for shadow in server.fleet.shadows
            ],
            "sessions": server.n_sessions,
            "rewards": server.rewards.n_taken,
            "retries": server.retries.n_repeated,
            "capture": None
            if capture is None
            else {"folder": str(capture.folder), "written": recorder.n_written, "dropped": recorder.n_dropped},
            "comparison": None if server.comparison is None else server.comparison.document(),
            **self.rollout.document(),
        }

    def weights(self, document: dict[str, Any]) -> dict[str, Any]:
        """Change weights, given as ``{"weights": {VARIANT: WEIGHT}}``; return the status.

        Raises:
            Refusal: the document is none of that, or the weights do not fit.
        """
        weights = document.get("weights")
        if set(document) != {"weights"} or not isinstance(weights, dict) or not weights:
            raise Refusal('weights are {"weights": {"VARIANT": NUMBER}}', kind="invalid")
        for name, weight in weights.items():
            if type(weight) not in (int, float) or not 0.0 <= weight <= 1e9:
                raise Refusal(f"the weight of '{name[:63]}' must be a number from 0 to 1e9", kind="invalid")
        self.rollout.set_weights({name: float(weight) for name, weight in weights.items()})
        return self.status()

    async def update(self, document: dict[str, Any]) -> dict[str, Any]:
        """Begin the update to another version, ``{"config": ENDPOINT}`` with absolute paths; return the status.

        Raises:
            Refusal: the document is no endpoint, changes what cannot change, or another update is under way.
        """
        if set(document) != {"config"}:
            raise Refusal('an update is {"config": ENDPOINT}, an endpoint file as JSON', kind="invalid")
        try:
            config = EndpointConfig.model_validate(document["config"])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise Refusal(f"config.{'.'.join(map(str, first['loc']))}: {first['msg']}", kind="invalid") from None
        serving = self.server.config
        changed = [name for name in FIXED if getattr(config, name) != getattr(serving, name)]
        if changed:
            raise Refusal(
                f"{changed[0]} cannot change while the endpoint runs; stop it and start it anew", kind="invalid"
            )
        if self.rollout.state.update is not None:
            raise Refusal("an update is under way; wait for its end, or roll it back", kind="invalid")
        try:
            generation = self.rollout.state.generation + 1
            fleet = await asyncio.to_thread(load_fleet, config, generation=generation, like=self.server.fleet)
        except PolicylabError as error:
            raise Refusal(str(error), kind="invalid") from error
        try:
            await asyncio.to_thread(self.rollout.begin, fleet)
        except StorageError as error:
            raise Refusal(str(error), kind="busy") from error
        return self.status()

    def promote(self, document: dict[str, Any]) -> dict[str, Any]:
        """Take the next step of an update, or all with ``{"full": true}``; return the status.

        Raises:
            Refusal: no update is under way, or the step cannot be stored.
        """
        if not set(document) <= {"full"} or not isinstance(document.get("full", False), bool):
            raise Refusal('a promotion is {} or {"full": true}', kind="invalid")
        try:
            self.rollout.promote(full=document.get("full", False))
        except StorageError as error:
            raise Refusal(str(error), kind="busy") from error
        return self.status()

    def rollback(self) -> dict[str, Any]:
        """Return all traffic to the old version; return the status.

        Raises:
            Refusal: no update is under way.
        """
        self.rollout.rollback("asked for")
        return self.status()

    def rewards(self, document: dict[str, Any]) -> dict[str, Any]:
        """Take rewards, given as `policylab.deployment.http.reported` says; return how many were new.

        Raises:
            Refusal: the document is none of that, or there is no room for them now.
        """
        space = self.server.fleet.bundle.observation_space
        return take_rewards(document, self.server.rewards, most=self.server.config.limits.batch, space=space)

    def metrics(self, refused: dict[str, int]) -> str:
        """Return the metrics in Prometheus' text format."""
        return prometheus.exposition(self.server, refused=refused, updating=self.rollout.state.update is not None)

    def openapi(self) -> dict[str, Any]:
        """Return the description of the routes."""
        return openapi.document(self.server.config.name, bundle=self.server.fleet.bundle)


def _variant(variant: Variant, *, generation: int, share: float) -> dict[str, Any]:
    counts = variant.counts
    p50, p99 = counts.latency_quantile_s(0.5), counts.latency_quantile_s(0.99)
    return {
        "name": variant.name,
        "policy_version": variant.policy.version,
        "generation": generation,
        "weight": variant.weight,
        "share": share,
        "exploration": variant.policy.exploration,
        "requests": counts.n_requests,
        "decisions": counts.n_decisions,
        "fallbacks": counts.n_fallbacks,
        "failures": counts.n_failures,
        "p50_ms": None if p50 is None else 1000.0 * p50,
        "p99_ms": None if p99 is None or math.isinf(p99) else 1000.0 * p99,
    }

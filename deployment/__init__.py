"""Endpoints for policies: decisions with propensities, variants, shadows, capture, guardrails, and the server.

`policylab.deployment.http` puts HTTP in front, and needs the extra ``serve``.
"""

from policylab.deployment.decision import Answer, Decision, DecisionRequest, Refusal
from policylab.deployment.endpoint import EndpointConfig, endpoint_of_bundle, load_endpoint
from policylab.deployment.fleet import Fleet, load_fleet
from policylab.deployment.policy_server import PolicyServer

__all__ = [
    "Answer",
    "Decision",
    "DecisionRequest",
    "EndpointConfig",
    "Fleet",
    "PolicyServer",
    "Refusal",
    "endpoint_of_bundle",
    "load_endpoint",
    "load_fleet",
]

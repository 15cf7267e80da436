"""The metrics of an endpoint in Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from policylab.deployment.fleet import LATENCY_BOUNDS_S
from policylab.deployment.policy_server import PolicyServer

Sample = tuple[dict[str, str], float]
_EVERY = 5
"""Of the latency buckets so many are told as one: a factor of three."""


def exposition(server: PolicyServer, *, refused: dict[str, int], updating: bool) -> str:
    """Return all metrics of a server.

    Args:
        server: whose they are.
        refused: refusals by kind.
        updating: whether an update is under way.
    """
    recorder, shadows = server.recorder, server.fleet.shadows
    routes = [
        ({"variant": r.variant.name, "policy_version": r.variant.policy.version}, r) for r in server.traffic.routes
    ]
    lines: list[str] = []

    def metric(name: str, kind: str, *, text: str, samples: Iterable[Sample]) -> None:
        lines.extend([f"# HELP policylab_{name} {text}", f"# TYPE policylab_{name} {kind}"])
        lines.extend(f"policylab_{name}{_labels(server.config.name, labels)} {value!r}" for labels, value in samples)

    def per_variant(name: str, text: str, *, attribute: str) -> None:
        found = [(labels, getattr(route.variant.counts, attribute)) for labels, route in routes]
        metric(name, "counter", text=text, samples=found)

    per_variant("requests_total", "requests answered", attribute="n_requests")
    per_variant("decisions_total", "decisions in them", attribute="n_decisions")
    per_variant("fallbacks_total", "requests answered with the fallback action", attribute="n_fallbacks")
    per_variant("failures_total", "times that the policy failed", attribute="n_failures")
    metric("traffic_share", "gauge", text="share of the traffic", samples=[(labels, r.share) for labels, r in routes])
    metric("refused_total", "counter", text="requests refused",
           samples=[({"kind": kind}, n) for kind, n in sorted(refused.items())])  # fmt: skip
    metric("updating", "gauge", text="1 while an update is under way", samples=[({}, float(updating))])
    metric("retries_total", "counter", text="retries answered again", samples=[({}, server.retries.n_repeated)])
    metric("sessions", "gauge", text="live sessions", samples=[({}, server.n_sessions)])
    metric(
        "sessions_evicted_total", "counter", text="sessions that made room", samples=[({}, server.sessions.n_evicted)]
    )
    metric("rewards_total", "counter", text="rewards taken", samples=[({}, server.rewards.n_taken)])
    metric("captured_total", "counter", text="lines written", samples=[({}, recorder.n_written)])
    metric("capture_dropped_total", "counter", text="decisions and rewards lost", samples=[({}, recorder.n_dropped)])
    metric("capture_waiting", "gauge", text="decisions and rewards not written yet", samples=[({}, recorder.n_waiting)])
    for name in ("decisions", "agreeing", "failures", "dropped"):
        metric(f"shadow_{name}_total", "counter", text=f"shadow answers: {name}",
               samples=[({"shadow": shadow.name}, getattr(shadow, f"n_{name}")) for shadow in shadows])  # fmt: skip
    lines += _histograms(server)
    return "\n".join(lines) + "\n"


def gauges_and_counters(endpoint: str, metrics: Iterable[tuple[str, str, Iterable[Sample]]]) -> str:
    """Return metrics of an endpoint, given as name, text and samples; names that end in ``_total`` only ever grow."""
    lines: list[str] = []
    for name, text, samples in metrics:
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP policylab_{name} {text}", f"# TYPE policylab_{name} {kind}"]
        lines += [f"policylab_{name}{_labels(endpoint, labels)} {value!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _histograms(server: PolicyServer) -> list[str]:
    name = "policylab_decision_seconds"
    lines = [f"# HELP {name} time from the request to its decision", f"# TYPE {name} histogram"]
    for route in server.traffic.routes:
        counts = route.variant.counts
        labels = {"variant": route.variant.name, "policy_version": route.variant.policy.version}
        cumulative = list(itertools.accumulate(counts.latency_buckets))
        told = [(f"{LATENCY_BOUNDS_S[i]:.3g}", cumulative[i]) for i in range(0, len(LATENCY_BOUNDS_S), _EVERY)]
        for bound, n in [*told, ("+Inf", cumulative[-1])]:
            lines.append(f"{name}_bucket{_labels(server.config.name, {**labels, 'le': bound})} {n}")
        lines.append(f"{name}_sum{_labels(server.config.name, labels)} {counts.latency_s:.9g}")
        lines.append(f"{name}_count{_labels(server.config.name, labels)} {cumulative[-1]}")
    return lines


def _labels(endpoint: str, labels: dict[str, str]) -> str:
    """Return labels, none of which can hold a quote: they are names, digests and words of ours."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in {"endpoint": endpoint, **labels}.items()) + "}"

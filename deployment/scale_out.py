"""An endpoint as a Ray Serve deployment: replicas of the same application, as many as its load asks for.

Source: Ray 2.60, https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html

| endpoint file | Ray Serve |
|---|---|
| autoscaling.min_capacity, .max_capacity | autoscaling_config min_replicas, max_replicas |
| autoscaling.concurrent_requests | target_ongoing_requests |
| autoscaling.scale_out_cooldown_s, .scale_in_cooldown_s | upscale_delay_s, downscale_delay_s |
| ray_serve.cpus_per_replica | ray_actor_options num_cpus |

Replicas share no memory, but a secret: what is drawn is a function of it and of the inference id, so that a retry gets
the same decision whichever replica it comes to. What needs one memory is refused (`EndpointConfig`, `ReplicaApp`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.http import wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.app import EndpointApp
from policylab.deployment.http.connection import ANSWER_TIMEOUT_S, KEEP_ALIVE_S
from policylab.deployment.http.http_app import Receive
from policylab.deployment.running import start_endpoint
from policylab.deployment.scaling_settings import Autoscaling
from policylab.errors import RunError, UserError
from policylab.extras import require
from policylab.ray_session import ray_session

WATCH_S = 5.0
MAX_LOOK_BACK_S = 30.0
MIN_LOOK_BACK_S = 2.0
FIXED_VERBS = ("weights", "update", "promote", "rollback", "rewards")


class ReplicaApp(EndpointApp):
    """One replica: it decides and describes; what would have to reach all replicas is refused."""

    def __init__(self, config: EndpointConfig, *, secret: bytes, access: Access) -> None:
        running = start_endpoint(config, secret=secret)
        super().__init__(running.server, access=access, admin=running.admin)
        self._place = f"/endpoints/{config.name}"
        del self.handlers["/metrics"]  # of one replica by chance; Ray has those of all
        for verb in FIXED_VERBS:
            self.handlers[f"{self._place}/{verb}"] = {"POST": self._fixed}

    async def _fixed(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        raise Refusal(
            "an endpoint on Ray Serve stays as it was started, and takes no rewards; change its file and serve it anew",
            kind="invalid",
        )

    async def _invoke(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        _check_no_session(headers)
        return await super()._invoke(headers, receive)

    async def _stream(self, headers: wire.Headers, receive: Receive) -> wire.Streamed:
        _check_no_session(headers)
        return await super()._stream(headers, receive)

    async def status(self) -> dict[str, object]:
        """Return how the endpoint stands; its counts are those of this replica."""
        status: Any = importlib.import_module("ray.serve").status
        (application,) = (await asyncio.to_thread(status)).applications.values()
        (deployment,) = application.deployments.values()
        found: dict[str, object] = await super().status()
        return {**found, "ray_serve": {str(state).lower(): n for state, n in deployment.replica_states.items() if n}}

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        found = self._admin.openapi()
        away = {"/metrics", *(f"{self._place}/{verb}" for verb in FIXED_VERBS)}
        found["paths"] = {path: item for path, item in found["paths"].items() if path not in away}
        return wire.json_response(found)


def _check_no_session(headers: wire.Headers) -> None:
    if wire.SESSION_ID in headers:
        raise Refusal("an endpoint on Ray Serve keeps no sessions; leave SessionId out", kind="invalid")


def autoscaling_config(scaling: Autoscaling) -> dict[str, Any]:
    """Return Ray Serve's ``autoscaling_config`` for the target of an endpoint file.

    >>> found = autoscaling_config(Autoscaling(max_capacity=4, concurrent_requests=8))
    >>> found["min_replicas"], found["max_replicas"], found["target_ongoing_requests"]
    (1, 4, 8.0)
    """
    look_back_s = min(MAX_LOOK_BACK_S, max(MIN_LOOK_BACK_S, scaling.scale_out_cooldown_s))
    return {
        "min_replicas": scaling.min_capacity,
        "max_replicas": scaling.max_capacity,
        "target_ongoing_requests": scaling.concurrent_requests,
        "upscale_delay_s": float(scaling.scale_out_cooldown_s),
        "downscale_delay_s": float(scaling.scale_in_cooldown_s),
        "look_back_period_s": look_back_s,
        "metrics_interval_s": look_back_s / 4.0,
    }


def deployment_of(serve: Any, config: EndpointConfig, *, secret: bytes, access: Access) -> Any:
    """Return the bound Ray Serve application of an endpoint."""
    assert config.ray_serve is not None
    assert config.autoscaling is not None
    document = config.model_dump_json()

    def replica() -> ReplicaApp:
        return ReplicaApp(EndpointConfig.model_validate_json(document), secret=secret, access=access)

    target = config.autoscaling.concurrent_requests or 1.0
    return serve.deployment(
        serve.ingress(replica)(),
        name=config.name,
        autoscaling_config=autoscaling_config(config.autoscaling),
        max_ongoing_requests=max(16, math.ceil(2.0 * target)),
        max_queued_requests=config.limits.connections,  # more get 503
        max_constructor_retry_count=3,
        ray_actor_options={"num_cpus": config.ray_serve.cpus_per_replica},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    ).bind()


@contextlib.contextmanager
def deployed(
    config: EndpointConfig, *, host: str, port: int, access: Access, secret: bytes | None = None
) -> Iterator[Callable[[], None]]:
    """Deploy an endpoint on Ray Serve; yield what looks after it, and take it away again.

    Args:
        config: with ``ray_serve`` and absolute paths.
        host: where every node's proxy listens.
        port: of the proxies.
        access: who may ask.
        secret: makes decisions repeatable from one start to the next; default: fresh ones.

    Raises:
        MissingExtraError: Ray Serve is not installed.
        BundleError: a bundle is refused.
        UserError: no such cluster, or Ray Serve runs on it already.
        RunError: the replicas do not start; from what is yielded: Ray has gone.
    """
    settings, scaling = config.ray_serve, config.autoscaling
    assert settings is not None
    assert scaling is not None
    serve: Any = require("ray.serve", extra="scale")
    load_fleet(config)  # tell what is wrong with a bundle before anything is started
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # what fails is told in our words
    cpus = settings.local_cpus(scaling.max_capacity)
    with ray_session(settings.address, num_cpus=cpus, runtime_env=settings.runtime_env, setting="ray_serve.address"):
        if serve.status().proxies:
            raise UserError(
                f"ray_serve.address={settings.address}: Ray Serve runs on that cluster already, and one endpoint has "
                "it alone; end it with `serve shutdown`, or use address: local"
            )
        try:
            serve.start(
                http_options={
                    "host": host,
                    "port": port,
                    "keep_alive_timeout_s": int(KEEP_ALIVE_S),
                    "request_timeout_s": ANSWER_TIMEOUT_S,
                },
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )
            application = deployment_of(serve, config, secret=secret or secrets.token_bytes(32), access=access)
            _run(serve, application, config=config)
            yield lambda: _look(serve, config.name)
        finally:
            logging.getLogger("policylab.ray_session").setLevel(logging.WARNING)  # actors end: that is no news now
            serve.shutdown()


def _run(serve: Any, application: Any, *, config: EndpointConfig) -> None:
    assert config.ray_serve is not None
    serve.run_many(
        [serve.RunTarget(application, name=config.name, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    until = time.monotonic() + config.ray_serve.start_timeout_s
    while (found := serve.status().applications.get(config.name)) is None or found.status != "RUNNING":
        if found is not None and found.status == "DEPLOY_FAILED":
            raise RunError(f"the replicas of '{config.name}' do not start: {found.message.strip()}")
        if time.monotonic() > until:
            raise RunError(
                f"the replicas of '{config.name}' do not answer after {config.ray_serve.start_timeout_s:g} s "
                "(ray_serve.start_timeout_s); does the cluster have ray_serve.cpus_per_replica processors free?"
            )
        time.sleep(0.1)


def _look(serve: Any, name: str) -> None:
    """Raise if the deployment has ended by itself; Ray starts replicas that crash again."""
    try:
        gone = name not in serve.status().applications
    except Exception as error:
        raise RunError(f"Ray has gone, and the endpoint with it: {error}") from error
    if gone:
        raise RunError(f"the deployment of '{name}' was taken away by somebody else")

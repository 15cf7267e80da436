"""`policylab container serve`: the program that SageMaker starts to host a policy.

| of the contract | here |
|---|---|
| /opt/ml/model | the bundle, unpacked by the service |
| POLICYLAB_ENDPOINT | what holds of the endpoint file inside, as JSON; without it, the bundle is served as it is |
| SAGEMAKER_BIND_TO_PORT, POLICYLAB_HOST | where to listen; default: port 8080 of every address |
| GET /ping, POST /invocations | answered once the policy is loaded |
| SAGEMAKER_MULTI_MODEL=true, /models | the service loads and unloads bundles below /opt/ml/models |
| SIGTERM | the requests under way are answered, then it ends |

Whoever reaches the container is let in, for the service authorises clients before; pages that change the endpoint
answer nobody.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from policylab.config import parse, validate
from policylab.deployment.endpoint import EndpointConfig, endpoint_of_bundle
from policylab.deployment.http.access import Access
from policylab.deployment.http.listening import bound_socket
from policylab.deployment.http.serving import serve
from policylab.deployment.sagemaker.models import ENDPOINT
from policylab.deployment.starting import start_app
from policylab.errors import UserError

ROOT, HOST = "POLICYLAB_ML_ROOT", "POLICYLAB_HOST"
BATCH, PAYLOAD_MB = "SAGEMAKER_BATCH", "SAGEMAKER_MAX_PAYLOAD_IN_MB"
MAX_PAYLOAD_MB, MAX_RECORDS = 100, 10_000_000
PORT, MANY = "SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MULTI_MODEL"
EVERY_ADDRESS = "0.0.0.0"
DRAIN_S = 10.0
"""The service stops sending requests before SIGTERM, and kills 30 s after it."""


def serve_container(environment: Mapping[str, str] = os.environ) -> None:
    """Answer until SIGTERM.

    Raises:
        ConfigError, UserError: the variables ask for what is not there.
        BundleError: the bundle is refused.
    """
    config = for_batches(endpoint_inside(environment), environment)
    access = Access(admin_token=secrets.token_urlsafe(32))
    with contextlib.closing(bound_socket(environment.get(HOST, EVERY_ADDRESS), _port(environment))) as listener:
        app, running = start_app(config, access=access, state_folder=None)
        with contextlib.suppress(KeyboardInterrupt):  # how it is told to stop
            serve(app, running, listener=listener, drain_s=DRAIN_S, ready=_tell)


def endpoint_inside(environment: Mapping[str, str]) -> EndpointConfig:
    """Return the endpoint that a container serves.

    Raises:
        ConfigError: what POLICYLAB_ENDPOINT says breaks a rule.
        UserError: there is no bundle, or many are asked for.
    """
    root = Path(environment.get(ROOT, "/opt/ml"))
    if environment.get(MANY, "").lower() == "true":
        return _many_inside(environment, root / "models")
    model = root / "model"
    if not (model / "manifest.json").is_file():
        raise UserError(f"{model}: no policy bundle; the model's data must be the model.tar.gz of a bundle")
    own = endpoint_of_bundle(model)
    if ENDPOINT not in environment:
        return own
    told = validate(EndpointConfig, parse(environment[ENDPOINT], ENDPOINT))
    if len(told.variants) != 1 or told.shadows:
        raise UserError(f"{ENDPOINT}: a container serves one variant; SageMaker divides the traffic among them")
    variant = told.variants[0].model_copy(update={"bundle": own.variants[0].bundle})
    return told.model_copy(update={"variants": (variant,)})


def for_batches(config: EndpointConfig, environment: Mapping[str, str]) -> EndpointConfig:
    """Return the endpoint with the limits of a batch transform job, if it is for one.

    Its requests hold as many records as fit into a payload, and whoever sends them waits for the answer.
    """
    if environment.get(BATCH, "").lower() != "true":
        return config
    text = environment.get(PAYLOAD_MB, "6")
    megabytes = min(int(text), MAX_PAYLOAD_MB) if text.isdigit() else 0
    limits = {"body_bytes": (megabytes or MAX_PAYLOAD_MB) * 2**20, "batch": MAX_RECORDS, "deadline_ms": None}
    return config.model_copy(update={"limits": config.limits.model_copy(update=limits)})


def _many_inside(environment: Mapping[str, str], folder: Path) -> EndpointConfig:
    """Return the endpoint of many models, which the service brings into the folder and tells by POST /models."""
    told = parse(environment.get(ENDPOINT, '{"name": "policy", "models": {"folder": "models"}}'), ENDPOINT)
    config = validate(EndpointConfig, told)
    if config.models is None:
        raise UserError(
            f"{MANY}: {ENDPOINT} must have a section `models`, as sagemaker.models in the endpoint file makes"
        )
    return config.model_copy(update={"models": config.models.model_copy(update={"folder": folder})})


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get(PORT, "8080")
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise UserError(f"{PORT}={text}: not a port")
    return int(text)


def _tell(url: str) -> None:
    sys.stdout.write(f"container: answers at {url}\n")
    sys.stdout.flush()

"""Commands on endpoints: serve, and status, weights, invoke, reward, update, promote and rollback of a running one."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

from policylab.cli.output import columns, emit
from policylab.errors import ConfigError, UserError

DRAIN_S = 1.0


def serve(arguments: argparse.Namespace) -> int:
    """Serve a policy bundle or an endpoint file until it is told to stop."""
    required_modules()
    from policylab.deployment.http.access import access_for
    from policylab.deployment.http.listening import bound_socket
    from policylab.deployment.http.serving import serve as serve_endpoint
    from policylab.deployment.starting import start_app

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("policylab").setLevel(logging.INFO)  # every step of an update
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # not every malformed request
    config = source_config(Path(arguments.source), overrides=arguments.overrides)
    access = access_for(arguments.host)
    state = Path(arguments.state) if arguments.state else None
    if arguments.workers < 0:
        raise UserError(f"--workers must be 0 (one process for all) or more, got {arguments.workers}")
    if config.ray_serve is not None:
        return _serve_on_ray(arguments, config, access=access, state=state)
    if arguments.workers:
        return _serve_by_workers(arguments, config, state=state)
    with contextlib.closing(bound_socket(arguments.host, arguments.port)) as listener, _held(state):
        app, running = start_app(config, access=access, state_folder=state)

        def ready(url: str) -> None:
            _announce(arguments, config.name, url=url)

        with contextlib.suppress(KeyboardInterrupt):  # how it is told to stop; every request has been answered
            serve_endpoint(app, running, listener=listener, drain_s=_drain_s(arguments), ready=ready)
    return 0


def _serve_by_workers(arguments: argparse.Namespace, config: Any, *, state: Path | None) -> int:
    from policylab.deployment.http.listening import bound_socket
    from policylab.deployment.http.serving import url_of
    from policylab.deployment.processes.workers import Workers

    with contextlib.closing(bound_socket(arguments.host, arguments.port)) as listener:
        workers = Workers(config, listener=listener, host=arguments.host, state=state,
                          n_workers=arguments.workers, drain_s=_drain_s(arguments))  # fmt: skip
        try:
            workers.start(url_of(listener))
            _announce(arguments, config.name, url=url_of(listener))
            workers.watch()
        except KeyboardInterrupt:  # how it is told to stop
            return 0
        finally:
            workers.stop()
    return 0


def _drain_s(arguments: argparse.Namespace) -> float:
    return DRAIN_S if arguments.drain is None else float(arguments.drain)


def _serve_on_ray(arguments: argparse.Namespace, config: Any, *, access: Any, state: Path | None) -> int:
    from policylab.deployment.http.listening import bound_socket
    from policylab.deployment.http.serving import url_of
    from policylab.deployment.scale_out import WATCH_S, deployed
    from policylab.deployment.state import StateFile

    if arguments.workers or arguments.drain is not None:
        raise UserError("an endpoint on Ray Serve takes no --workers or --drain; its autoscaling section says how many")
    with contextlib.closing(bound_socket(arguments.host, arguments.port)) as free:  # Ray binds it again
        url = url_of(free)
    secret = None if state is None else StateFile(state).secret()
    port = int(url.rpartition(":")[2])
    with (
        contextlib.suppress(KeyboardInterrupt),  # how it is told to stop
        _held(state),
        deployed(config, host=arguments.host, port=port, access=access, secret=secret) as look,
    ):
        _announce(arguments, config.name, url=url)
        while True:
            time.sleep(WATCH_S)
            look()
    return 0


def _announce(arguments: argparse.Namespace, name: str, *, url: str) -> None:
    document = {"name": name, "url": url, "invocations": f"{url}/endpoints/{name}/invocations"}
    text = json.dumps(document) if arguments.json else f"{name} answers at {document['invocations']}"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def required_modules() -> None:
    """Tell how to install what the server needs, if it is missing."""
    from policylab.extras import require

    for module in ("uvicorn", "httptools", "msgspec"):
        require(module, extra="serve")


def _held(state: Path | None) -> Any:
    from policylab.deployment.state import StateFile

    return contextlib.nullcontext() if state is None else StateFile(state).held()


def source_config(source: Path, *, overrides: list[str]) -> Any:
    """Return the endpoint of an endpoint file, a bundle, or a run directory that holds one."""
    from policylab.deployment.endpoint import endpoint_of_bundle, load_endpoint

    if not source.exists():
        raise ConfigError(f"{source}: no such bundle or endpoint file")
    if source.is_file() and not source.name.endswith((".tar.gz", ".tgz")):
        return load_endpoint(source, overrides=overrides)
    inner = source / "bundle"
    return endpoint_of_bundle(inner if inner.is_dir() else source, overrides=overrides)


# ------------------------------------------------------------------ a running endpoint


def status(arguments: argparse.Namespace) -> int:
    """Say how a running endpoint stands."""
    document = _client(arguments).get("")
    emit(arguments, document, text=lambda: _status_text(document))
    return 0


def weights(arguments: argparse.Namespace) -> int:
    """Change the weights of variants."""
    pairs = [weight_pair(text) for text in arguments.weights]
    document = _client(arguments).post("/weights", {"weights": dict(pairs)})
    emit(arguments, document, text=lambda: _status_text(document))
    return 0


def update(arguments: argparse.Namespace) -> int:
    """Begin the update to another version of the endpoint file."""
    from policylab.deployment.endpoint import load_endpoint

    config = load_endpoint(Path(arguments.file), overrides=arguments.overrides)
    document = _client(arguments).post("/update", {"config": config.model_dump(mode="json")})
    emit(arguments, document, text=lambda: _status_text(document))
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Return all traffic to the old version."""
    document = _client(arguments).post("/rollback", {})
    emit(arguments, document, text=lambda: _status_text(document))
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Take the next step of an update now, or all of them."""
    document = _client(arguments).post("/promote", {"full": arguments.full})
    emit(arguments, document, text=lambda: _status_text(document))
    return 0


def invoke(arguments: argparse.Namespace) -> int:
    """Ask for a decision."""
    headers = {
        "x-amzn-sagemaker-target-variant": arguments.variant,
        "x-amzn-sagemaker-target-model": arguments.model,
        "x-amzn-sagemaker-inference-id": arguments.inference_id,
        "x-amzn-sagemaker-session-id": arguments.session,
    }
    body = observation_body(arguments)
    given = {name: text for name, text in headers.items() if text is not None}
    document = _client(arguments).post("/invocations", body, headers=given)
    rows = [[key, str(value)] for key, value in document.items()]
    emit(arguments, document, text=lambda: columns(rows))
    return 0


def observation_body(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the body of a request for a decision."""
    body: dict[str, Any] = {"observation": _json(arguments.observation)}
    if arguments.mask is not None:
        body["mask"] = [letter == "1" for letter in arguments.mask]
    return body


def _json(observation: str) -> Any:
    try:
        return json.loads(observation)
    except ValueError as error:
        raise UserError(f"the observation must be JSON, such as 3 or [0.1, 0.2]: {error}") from None


def reward(arguments: argparse.Namespace) -> int:
    """Report the reward of a decision, and the end of its episode."""
    report = {"decision_id": arguments.decision_id, "reward": arguments.reward}
    report |= {name: True for name in ("terminated", "truncated") if getattr(arguments, name)}
    if arguments.next_observation is not None:
        report["next_observation"] = _json(arguments.next_observation)
    document = _client(arguments).post("/rewards", {"rewards": [report]})
    kept = "" if document["recorded"] else "; this endpoint captures nothing, so it is not recorded"
    emit(arguments, document, text=lambda: f"accepted {document['accepted']}, repeated {document['repeated']}{kept}")
    return 0


def _client(arguments: argparse.Namespace) -> Any:
    from policylab.deployment.http.client import EndpointClient

    given = arguments.url or _background_url(arguments.name) or "http://127.0.0.1:8080"
    url = urllib.parse.urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(f"--url must be such as http://127.0.0.1:8080, got {given!r}")
    return EndpointClient(given, name=arguments.name)


def _background_url(name: str | None) -> str | None:
    """Return where an endpoint answers that was created here under this name."""
    from policylab.deployment.processes.background import ROOT, BackgroundEndpoint

    server = None if name is None else BackgroundEndpoint(ROOT, name).server()
    return None if server is None else server.url


def weight_pair(text: str) -> tuple[str, float]:
    """Return the variant and the weight of ``VARIANT=NUMBER``."""
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise UserError(f"weights are VARIANT=NUMBER, such as stable=0.9, got {text!r}") from None


def _models_text(document: dict[str, Any]) -> str:
    models = document["models"]
    return (
        f"{document['name']}: {document['status']}, {document['requests']:,} requests\n"
        f"{models['loaded']:,} models loaded of {models['folder']}, {models['memory_mb']:.1f} of "
        f"{models['memory_limit_mb']:g} MB; {models['loads']:,} loads, {models['unloads']:,} unloads, "
        f"{models['failures']:,} refused"
    )


def _serverless_text(document: dict[str, Any]) -> str:
    serverless = document.pop("serverless")
    last = serverless["last_cold_start_ms"]
    line = f"serverless: {serverless['cold_starts']:,} cold starts" + (
        "" if last is None else f", the last {last:.3g} ms"
    )
    head = _status_text(document) if serverless["awake"] else f"{document['name']}: {document['status']}, asleep"
    return f"{head}\n{line}"


def _status_text(document: dict[str, Any]) -> str:
    if "models" in document:
        return _models_text(document)
    if "serverless" in document:
        return _serverless_text(document)
    heads = ["variant", "version", "share", "requests", "fallbacks", "failures", "p99 ms"]
    rows = [
        [
            one["name"],
            one["policy_version"][:12],
            f"{one['share']:.1%}",
            f"{one['requests']:,}",
            f"{one['fallbacks']:,}",
            f"{one['failures']:,}",
            "-" if one["p99_ms"] is None else f"{one['p99_ms']:.3g}",
        ]
        for one in document["variants"]
    ]
    lines = [f"{document['name']}: {document['status']}, generation {document['generation']}", columns([heads, *rows])]
    for one in document["shadows"]:
        lines.append(f"shadow {one['name']}: {one['decisions']:,} answers, {one['agreeing']:,} the same")
    if document.get("asynchronous"):
        queue = ", ".join(f"{n:,} {state}" for state, n in document["asynchronous"].items())
        lines.append(f"asynchronous invocations: {queue}")
    lines += _comparison_lines(document.get("comparison"))
    if document.get("ray_serve"):
        replicas = ", ".join(f"{n:,} {state}" for state, n in document["ray_serve"].items())
        lines.append(f"replicas: {replicas}; requests are those of one of them")
    if document["update"]:
        under_way = document["update"]
        steps = " > ".join(f"{share:.0%}" for share in under_way["steps"])
        lines.append(
            f"update to generation {under_way['generation']}: {under_way['kind']} {steps}, step {under_way['step'] + 1}"
        )
        if under_way["evidence"]:
            low, high = under_way["evidence"]["difference"]
            kind, verdict = under_way["evidence"]["kind"], under_way["evidence"]["verdict"]
            lines.append(f"reward, new minus old, {kind}: [{low:.4g}, {high:.4g}], {verdict}")
    if document["events"]:
        last = document["events"][-1]
        lines.append(f"last: {last['what']}: {last['text']}")
    return "\n".join(lines)


def _comparison_lines(found: dict[str, Any] | None) -> list[str]:
    """Return how the variants compare by reward."""
    if found is None:
        return []
    counts = ", ".join(f"{one['name']} {one['n']:,}" for one in found["variants"])
    size = "" if found["sample_size"] is None else f" of {found['sample_size']:,}"
    lines = [f"comparison with {found['baseline']}, {found['kind']}, rewards{size}: {counts}"]
    for one in found["against_baseline"]:
        interval = "not yet" if one["interval"] is None else "[{:.4g}, {:.4g}]".format(*one["interval"])
        difference = "" if one["difference"] is None else f"{one['difference']:+.4g} "
        lines.append(f"  {one['name']} minus {found['baseline']}: {difference}{interval}, {one['verdict']}")
    return lines

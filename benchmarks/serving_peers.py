"""The servers that `benchmarks.serving` compares: each answers at a port until it is ended.

python -m benchmarks.serving_peers {empty,ray} --port N [--bundle FOLDER]
"""

import argparse
import json
from pathlib import Path

BODY = json.dumps({
    "action": 1, "propensity": 1.0, "propensity_kind": "probability", "variant": "policy", "variant_probability": 1.0,
    "policy_version": "0" * 64, "decision_id": "0" * 32, "source": "policy",
}).encode()  # fmt: skip
"""As long as an answer of policylab."""


async def empty(scope, receive, send):  # noqa: PLR0917 - ASGI
    """The least that an ASGI application can do: read the body, answer the same."""
    await receive()
    headers = [
        (b"content-type", b"application/json"),
        (b"x-amzn-invoked-production-variant", b"policy"),
        (b"x-amzn-requestid", b"0" * 32),
        (b"content-length", b"%d" % len(BODY)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def serve_empty(port):
    import uvicorn

    uvicorn.run(empty, port=port, http="httptools", loop="asyncio", ws="none", lifespan="off", access_log=False,
                log_level="error")  # fmt: skip


def serve_ray(port, bundle):
    """A plain deployment, as Ray Serve's first page shows one: a class that answers a Starlette request."""
    import ray
    from ray import serve
    from starlette.requests import Request

    from policylab.agents.bundle import load_bundle
    from policylab.agents.space_json import value_from_json

    @serve.deployment
    class Policy:
        def __init__(self):
            self.bundle = load_bundle(Path(bundle))

        async def __call__(self, request: Request):
            observation = value_from_json(self.bundle.observation_space, (await request.json())["observation"])
            return {"action": self.bundle.policy.act(observation)}

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Policy.bind(), blocking=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=["empty", "ray"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    if arguments.peer == "empty":
        serve_empty(arguments.port)
    else:
        serve_ray(arguments.port, arguments.bundle)


if __name__ == "__main__":
    main()

"""The OpenAPI 3.1 description of an endpoint, made for its own spaces (spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from policylab.agents.bundle import Bundle
from policylab.deployment.http.bodies import CSV, JSON, JSON_LINES, NPY

_ERROR = {"description": "refused; x-amzn-ErrorType names the kind", "content": {JSON: {"schema": {
    "type": "object", "properties": {"Message": {"type": "string"}}, "required": ["Message"]}}}}  # fmt: skip
_HEADERS = (
    (
        "X-Amzn-SageMaker-Target-Variant",
        "the variant to ask, whatever its weight",
        {"type": "string", "pattern": "^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", "maxLength": 63},
    ),
    (
        "X-Amzn-SageMaker-Inference-Id",
        "names the request: a retry gets the same answer",
        {"type": "string", "pattern": "^[ -~]{1,64}$"},
    ),
    (
        "X-Amzn-SageMaker-Session-Id",
        "keeps requests on one variant; NEW_SESSION begins one",
        {"type": "string", "pattern": "^(NEW_SESSION|[a-zA-Z0-9](-*[a-zA-Z0-9])*)$", "maxLength": 256},
    ),
)
_ASYNC_HEADERS = (
    ("X-Amzn-SageMaker-Content-Type", f"of the input: {JSON}, {CSV} or {NPY}", {"type": "string"}),
    ("X-Amzn-SageMaker-Accept", "of the answer", {"type": "string"}),
    ("X-Amzn-SageMaker-InputLocation", "of the input", {"type": "string", "pattern": "^s3://", "maxLength": 1024}),
    (
        "X-Amzn-SageMaker-Inference-Id",
        "a repeated request is one invocation",
        {"type": "string", "pattern": "^[ -~]{1,64}$"},
    ),
    ("X-Amzn-SageMaker-RequestTTLSeconds", "time in the queue", {"type": "integer", "minimum": 60, "maximum": 21_600}),
    (
        "X-Amzn-SageMaker-InvocationTimeoutSeconds",
        "time for the answer",
        {"type": "integer", "minimum": 1, "maximum": 3600},
    ),
)


def document(name: str, *, bundle: Bundle) -> dict[str, Any]:
    """Return the description of the endpoint ``name`` for the spaces of ``bundle``."""
    invoke = _invoke(bundle)
    place = f"/endpoints/{name}"
    return {
        "openapi": "3.1.0",
        "info": {"title": f"policylab endpoint {name}", "version": "1"},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": {
            f"{place}/invocations": {"post": {**invoke, "summary": "InvokeEndpoint of Amazon SageMaker"}},
            f"{place}/invocations-response-stream": {"post": _stream(invoke)},
            "/invocations": {"post": {**invoke, "summary": "the same, as a container answers"}},
            "/ping": {"get": {"summary": "health", "responses": {"200": {"description": "in service"}, "503": _ERROR}}},
            "/execution-parameters": {"get": {"summary": "how a transform job asks", "responses": _responses()}},
            f"{place}/rewards": {"post": _posted("report rewards of decisions", _REWARDS)},
            place: {"get": {"summary": "status", "responses": _responses()}},
            f"{place}/weights": {"post": _posted("change the weights of variants", _WEIGHTS)},
            f"{place}/update": {"post": _posted("begin the update to another version", _UPDATE)},
            f"{place}/promote": {"post": _posted("take the next step of an update", _PROMOTE)},
            f"{place}/rollback": {"post": _posted("return to the old version", {"type": "object"})},
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics",
                    "responses": {"200": {"description": "text format", "content": {"text/plain": {}}}, "401": _ERROR},
                }
            },
            "/openapi.json": {"get": {"summary": "this document", "responses": _responses()}},
        },
    }


def asynchronous_document(name: str, *, bundle: Bundle) -> dict[str, Any]:
    """Return the description of the asynchronous endpoint ``name``: it takes invocations, and answers in files."""
    found, place = document(name, bundle=bundle), f"/endpoints/{name}"
    for page in (f"{place}/invocations", f"{place}/invocations-response-stream"):
        del found["paths"][page]
    taken = {
        "description": "taken; x-amzn-sagemaker-OutputLocation and -FailureLocation tell where the answer will be",
        "content": {JSON: {"schema": _closed({"InferenceId": {"type": "string"}}, "InferenceId")}},
    }
    responses = {"202": taken, **{status: text for status, text in _responses().items() if status != "200"}}
    found["paths"][f"{place}/async-invocations"] = {
        "post": {
            "summary": "InvokeEndpointAsync of Amazon SageMaker",
            "parameters": [{"name": n, "in": "header", "description": t, "schema": s} for n, t, s in _ASYNC_HEADERS],
            "requestBody": {"description": "the input, unless InputLocation is given", "content": {"*/*": {}}},
            "responses": responses,
        }
    }
    return found


def models_document(name: str) -> dict[str, Any]:
    """Return the description of the endpoint ``name`` of many models, whose spaces differ."""
    place = f"/endpoints/{name}"
    responses = _responses(404, 409, 507)
    answered = {"requestBody": {"required": True, "content": {JSON: {}, CSV: {}, NPY: {}}}, "responses": responses}
    target = {"name": "X-Amzn-SageMaker-Target-Model", "in": "header", "description": "path of the model's bundle",
              "required": True, "schema": {"type": "string", "maxLength": 1024}}  # fmt: skip
    one = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 1024}}
    headers = _header_parameters()[1:]  # there are no variants
    invoke = {**answered, "parameters": [target, *headers]}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"policylab endpoint {name} of many models", "version": "1"},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": {
            f"{place}/invocations": {"post": {**invoke, "summary": "InvokeEndpoint of Amazon SageMaker"}},
            "/invocations": {"post": {**invoke, "summary": "the same, as a container answers"}},
            "/models": {
                "get": {"summary": "models that are loaded", "responses": responses},
                "post": {**_posted("load a model; 507 if memory is short", _MODEL), "responses": responses},
            },
            "/models/{model}": {
                "parameters": [one],
                "get": {"summary": "where a loaded model is from", "responses": responses},
                "delete": {"summary": "unload a model", "responses": responses},
            },
            "/models/{model}/invoke": {
                "parameters": [one],
                "post": {**answered, "summary": "ask a loaded model", "parameters": headers},
            },
            "/ping": {"get": {"summary": "health", "responses": {"200": {"description": "in service"}, "503": _ERROR}}},
            f"{place}/rewards": {"post": _posted("report rewards of decisions", _REWARDS)},
            place: {"get": {"summary": "status", "responses": _responses()}},
            "/metrics": {"get": {"summary": "Prometheus metrics", "responses": {"200": {"description": "text"}}}},
            "/openapi.json": {"get": {"summary": "this document", "responses": _responses()}},
        },
    }


def _header_parameters() -> list[dict[str, Any]]:
    return [{"name": n, "in": "header", "description": t, "schema": s} for n, t, s in _HEADERS]


def _invoke(bundle: Bundle) -> dict[str, Any]:
    single, batch = _asked(bundle)
    decision = _decision(bundle)
    decisions = {"type": "object", "properties": {"decisions": {"type": "array", "items": decision}}}
    session = {"type": "object", "maxProperties": 0, "description": "of a request that opens or closes a session"}
    text, binary = {"schema": {"type": "string"}}, dict[str, Any]()
    return {
        "parameters": _header_parameters(),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"anyOf": [single, batch]}}, JSON_LINES: text, CSV: text, NPY: binary},
        },
        "responses": {
            **_responses(),
            "200": {
                "description": "a decision, or one for each observation",
                "content": {
                    JSON: {"schema": {"anyOf": [decision, decisions, session]}},
                    JSON_LINES: text,
                    CSV: text,
                    NPY: binary,
                },
            },
        },
    }


def _stream(invoke: dict[str, Any]) -> dict[str, Any]:
    events = {
        "description": "events of lines, one for each decision",
        "content": {"application/vnd.amazon.eventstream": {}},
    }
    responses = {**invoke["responses"], "200": events}
    *others, session = invoke["parameters"]
    known = {**session, "description": "keeps requests on one variant",
             "schema": {**session["schema"], "pattern": "^(?!NEW_SESSION$)[a-zA-Z0-9](-*[a-zA-Z0-9])*$"}}  # fmt: skip
    summary = "InvokeEndpointWithResponseStream of Amazon SageMaker"
    return {**invoke, "parameters": [*others, known], "responses": responses, "summary": summary}


def _asked(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of a body of one observation and of several."""
    observation = space_schema(bundle.observation_space)
    mask = {"type": "array", "items": {"type": "boolean"}}
    about = {
        "episode": {"type": "string", "minLength": 1, "maxLength": 256},
        "step": {"type": "integer", "minimum": 0},
    }
    single = {"observation": observation, "mask": mask, **about}
    batch = {
        "observations": {"type": "array", "items": observation, "minItems": 1},
        "masks": {"type": "array", "items": mask},
        **about,
    }
    return _closed(single, "observation"), _closed(batch, "observations")


def _closed(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


def _decision(bundle: Bundle) -> dict[str, Any]:
    properties = {
        "action": space_schema(bundle.action_space),
        "propensity": {"type": "number", "minimum": 0},
        "propensity_kind": {"enum": ["probability", "density"]},
        "variant": {"type": "string"},
        "variant_probability": {"type": "number", "minimum": 0, "maximum": 1},
        "policy_version": {"type": "string"},
        "decision_id": {"type": "string"},
        "source": {"enum": ["policy", "fallback"]},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def space_schema(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the JSON Schema of the values of a space; bounds of arrays are left to the endpoint.

    >>> space_schema(spaces.Discrete(4))
    {'type': 'integer', 'minimum': 0, 'maximum': 3}
    """
    match space:
        case spaces.Discrete():
            return {"type": "integer", "minimum": int(space.start), "maximum": int(space.start) + int(space.n) - 1}
        case spaces.Tuple():
            n = len(space.spaces)
            return {"type": "array", "prefixItems": [space_schema(part) for part in space.spaces],
                    "minItems": n, "maxItems": n}  # fmt: skip
        case spaces.Dict():
            parts = {name: space_schema(part) for name, part in space.spaces.items()}
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    schema: dict[str, Any] = {"type": "number" if isinstance(space, spaces.Box) else "integer"}
    for size in reversed(space.shape or ()):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def _responses(*more: int) -> dict[str, Any]:
    found: dict[str, Any] = {"200": {"description": "done", "content": {JSON: {"schema": {"type": "object"}}}}}
    return found | {str(status): _ERROR for status in (400, 401, 408, 413, 415, 424, 429, 500, 503, *more)}


def _posted(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {JSON: {"schema": schema}}}
    return {"summary": summary, "requestBody": body, "responses": _responses()}


_MODEL = {
    "type": "object",
    "properties": {"model_name": {"type": "string"}, "url": {"type": "string", "description": "place of its bundle"}},
    "required": ["model_name", "url"],
    "additionalProperties": False,
}
_UPDATE = {
    "type": "object",
    "properties": {"config": {"type": "object", "description": "an endpoint file as JSON, with absolute paths"}},
    "required": ["config"],
    "additionalProperties": False,
}
_PROMOTE = {
    "type": "object",
    "properties": {"full": {"type": "boolean", "description": "take all of its steps"}},
    "additionalProperties": False,
}
_REWARD = {
    "type": "object",
    "properties": {
        "decision_id": {"type": "string", "pattern": "^[ -~]{1,128}$"},
        "reward": {"type": "number", "minimum": -1e300, "maximum": 1e300},
        "reward_id": {"type": ["string", "null"], "pattern": "^[ -~]{1,128}$"},
        "terminated": {"type": ["boolean", "null"], "description": "the task was over with this decision"},
        "truncated": {
            "type": ["boolean", "null"],
            "description": "the episode was cut off; next_observation is needed then",
        },
        "next_observation": {"description": "what was observed after the last action of the episode"},
    },
    "required": ["decision_id", "reward"],
    "additionalProperties": False,
}
_REWARDS = {
    "type": "object",
    "properties": {"rewards": {"type": "array", "items": _REWARD, "minItems": 1}},
    "required": ["rewards"],
    "additionalProperties": False,
}
_WEIGHTS = {
    "type": "object",
    "properties": {
        "weights": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e9},
        }
    },
    "required": ["weights"],
    "additionalProperties": False,
}

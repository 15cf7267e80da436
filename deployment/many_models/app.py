"""`ModelsApp`: an endpoint of many models over HTTP.

| route | what |
|---|---|
| POST /endpoints/NAME/invocations, /invocations | InvokeEndpoint with a TargetModel, which is loaded if it was not |
| GET, POST /models; GET, DELETE /models/MODEL | list, load; get, unload: the contract of multi-model containers |
| POST /models/MODEL/invoke | asks a model that is loaded |
| POST /endpoints/NAME/rewards, GET /endpoints/NAME | rewards by decision id; status |
| GET /ping, /metrics, /openapi.json | health, Prometheus, a description of all this |

Clients may load and unload: what they name is in the folder of models, where a request would load it anyway.
"""

from __future__ import annotations

import functools
import secrets
import time
import urllib.parse
from pathlib import Path
from typing import Any

from policylab.deployment.capture.rewards import Rewards
from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.http import openapi, prometheus, wire
from policylab.deployment.http.access import Access
from policylab.deployment.http.http_app import Handler, HttpApp, Receive, Scope
from policylab.deployment.http.reported import take_rewards
from policylab.deployment.many_models.store import LoadedModel, ModelStore
from policylab.deployment.state import StateFile

PAGE = 100
"""Models that one page of the list tells."""


class RunningModels:
    """An endpoint of many models that runs in this process.

    Args:
        config: with a ``models`` section and absolute paths.
        state_folder: keeps the secret that makes decisions repeatable; None keeps none.
    """

    def __init__(self, config: EndpointConfig, *, state_folder: Path | None = None) -> None:
        secret = secrets.token_bytes(32) if state_folder is None else StateFile(state_folder).secret()
        self.config = config
        self.store = ModelStore(config, secret=secret)
        self.rewards = Rewards(self.store.recorder, n_remembered=config.limits.remembered_ids, wall_clock=time.time)

    def tick(self) -> None:
        """Do nothing: nothing takes time here."""

    def close(self) -> None:
        """Write what was captured and stop the threads."""
        self.store.close()


class ModelsApp(HttpApp):
    """Serves many models.

    Args:
        running: holds them.
        access: who may ask.
    """

    def __init__(self, running: RunningModels, *, access: Access) -> None:
        super().__init__(running.config.limits, access=access)
        self._running = running
        self._store = running.store
        self._n_requests = 0
        place = f"/endpoints/{running.config.name}"
        self.handlers = {
            f"{place}/invocations": {"POST": self._invoke},
            "/invocations": {"POST": self._invoke},
            "/models": {"POST": self._load},  # and GET
            "/ping": {"GET": self.ping, "HEAD": self.ping},
            f"{place}/rewards": {"POST": self._rewards},
            place: {"GET": self._status},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    def found(self, scope: Scope) -> Handler:
        """Return what answers a request, also one whose path names a model."""
        path, method = scope["path"], scope["method"]
        if path == "/models" and method == "GET":
            return functools.partial(self._list, query=scope.get("query_string", b""))
        if not path.startswith("/models/"):
            return super().found(scope)
        name = path.removeprefix("/models/")
        by_method = {"GET": self._get, "DELETE": self._unload}
        if method == "POST" and name.endswith("/invoke"):
            return functools.partial(self._invoke_loaded, name=name.removesuffix("/invoke"))
        if method not in by_method:
            raise Refusal("this page takes GET or DELETE, and POST with /invoke at its end", kind="method")
        return functools.partial(by_method[method], name=name)

    # ------------------------------------------------------------------ decisions

    async def _invoke(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        body = await self._asked(headers, receive)
        name = headers.get(wire.TARGET_MODEL)
        if name is None:
            raise Refusal("this endpoint has many models; name one as TargetModel", kind="invalid")
        return await self._answer(headers, body, model=await self._store.find(name.decode("latin-1")))

    async def _invoke_loaded(self, headers: wire.Headers, receive: Receive, *, name: str) -> wire.Response:
        body = await self._asked(headers, receive)
        return await self._answer(headers, body, model=self._store.known(name))

    async def _asked(self, headers: wire.Headers, receive: Receive) -> bytes:
        self.access.check_client(headers)
        if self.rate is not None:
            self.rate.take()
        return await self.body(headers, receive, max_bytes=self.max_body)

    async def _answer(self, headers: wire.Headers, body: bytes, *, model: LoadedModel) -> wire.Response:
        self._n_requests += 1
        with model.used() as invocations:
            return await invocations.answer({k: v for k, v in headers.items() if k != wire.TARGET_MODEL}, body)

    # ------------------------------------------------------------------ models

    async def _list(self, headers: wire.Headers, receive: Receive, *, query: bytes) -> wire.Response:
        self.access.check_client(headers)
        after = urllib.parse.parse_qs(query.decode("latin-1")).get("next_page_token", [""])[0]
        names = sorted(name for name in self._store.loaded if name > after)
        document: dict[str, Any] = {"models": [self._store.loaded[name].document() for name in names[:PAGE]]}
        if len(names) > PAGE:
            document["nextPageToken"] = names[PAGE - 1]
        return wire.json_response(document)

    async def _load(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        document = await self.document(headers, receive)
        name, url = document.get("model_name"), document.get("url")
        if not isinstance(name, str) or not isinstance(url, str) or len(document) != 2:
            raise Refusal('a model is {"model_name": NAME, "url": PLACE}', kind="invalid")
        await self._store.load(name, url)
        return wire.json_response(self._store.known(name).document())

    async def _get(self, headers: wire.Headers, receive: Receive, *, name: str) -> wire.Response:
        self.access.check_client(headers)
        return wire.json_response(self._store.known(name).document())

    async def _unload(self, headers: wire.Headers, receive: Receive, *, name: str) -> wire.Response:
        self.access.check_client(headers)
        await self._store.unload(name)
        return wire.json_response({})

    # ------------------------------------------------------------------ the other routes

    async def _rewards(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        document = await self.document(headers, receive)
        most = self._running.config.limits.batch
        return wire.json_response(take_rewards(document, self._running.rewards, most=most))

    async def _status(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_admin(headers)
        store, capture = self._store, self._running.config.capture
        return wire.json_response({
            "name": self._running.config.name,
            "status": "Stopping" if self.draining else "InService",
            "requests": self._n_requests,
            "models": {
                "folder": str(store.settings.folder),
                "loaded": len(store.loaded),
                "memory_mb": store.n_bytes / 2**20,
                "memory_limit_mb": store.settings.memory_mb,
                "loads": store.n_loads,
                "unloads": store.n_unloads,
                "failures": store.n_failures,
            },
            "rewards": self._running.rewards.n_taken,
            "retries": store.retries.n_repeated,
            "capture": None
            if capture is None
            else {"folder": str(capture.folder), "written": store.recorder.n_written,
                  "dropped": store.recorder.n_dropped},
        })  # fmt: skip

    async def _metrics(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        store, recorder = self._store, self._store.recorder
        numbers = {
            "requests_total": ("requests to models", self._n_requests),
            "models_loaded": ("models in memory", len(store.loaded)),
            "model_memory_bytes": ("memory of the loaded models", store.n_bytes),
            "model_loads_total": ("models loaded", store.n_loads),
            "model_unloads_total": ("models unloaded", store.n_unloads),
            "model_failures_total": ("bundles refused", store.n_failures),
            "retries_total": ("retries answered again", store.retries.n_repeated),
            "rewards_total": ("rewards taken", self._running.rewards.n_taken),
            "captured_total": ("lines written", recorder.n_written),
            "capture_dropped_total": ("decisions and rewards lost", recorder.n_dropped),
        }
        refused = [({"kind": kind}, float(n)) for kind, n in sorted(self.refused.items())]
        text = prometheus.gauges_and_counters(
            self._running.config.name,
            [("refused_total", "requests refused", refused)]
            + [(name, text, [({}, float(value))]) for name, (text, value) in numbers.items()],
        )
        return wire.text_response(text)

    async def _openapi(self, headers: wire.Headers, receive: Receive) -> wire.Response:
        self.access.check_client(headers)
        return wire.json_response(openapi.models_document(self._running.config.name))

"""`ModelStore`: the policies of an endpoint of many models, loaded when they are asked, unloaded when memory is short.

    find(name)   on demand: what was used least recently makes room (what SageMaker's platform does)
    load(name)   when told: nothing is unloaded for it, 507 if it does not fit (what a container does)

A name is the path of a bundle below the folder. It is checked after it was decoded, and so is the place that it leads
to. Everything but reading bundles happens on the event loop. A model stays as it was loaded until it is unloaded.

Source of the contract: https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from policylab.agents.bundle import Bundle
from policylab.deployment.capture.recorder import Recorder
from policylab.deployment.decision import Refusal
from policylab.deployment.endpoint import EndpointConfig, VariantSettings
from policylab.deployment.fleet import load_fleet
from policylab.deployment.http.invocations import Invocations
from policylab.deployment.mode_settings import VARIANT, ModelsSettings
from policylab.deployment.policy_server import N_COMPUTING, PolicyServer, Shared, own_retries
from policylab.errors import PolicylabError, plain

N_LOADING = 2
"""Bundles that are read at the same time; the memory limit may be exceeded by these for a moment."""
MODEL_BYTES = 50_000
"""Memory of a model besides its numbers: twice what the smallest policies were measured to take."""
FAILED_S = 5.0
"""How long a bundle that was refused is refused again without being read."""
MAX_FAILED = 1000
MAX_NAME = 1024
_NAME = re.compile(r"[A-Za-z0-9_][\w.+=@-]*(?:/[A-Za-z0-9_][\w.+=@-]*)*", re.ASCII)
logger = logging.getLogger(__name__)


class LoadedModel:
    """One policy in memory.

    Args:
        name: as requests name it.
        place: of its bundle.
        server: decides.
    """

    def __init__(self, name: str, place: Path, *, server: PolicyServer) -> None:
        self.name = name
        self.place = place
        self.server = server
        self.invocations = Invocations(server)
        self.n_bytes = _bytes_of(server.fleet.bundle)
        self.n_using = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def used(self) -> Iterator[Invocations]:
        """Keep it in memory while a request is answered."""
        self.n_using += 1
        self._idle.clear()
        try:
            yield self.invocations
        finally:
            self.n_using -= 1
            if not self.n_using:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until no request uses it."""
        await self._idle.wait()

    def document(self) -> dict[str, str]:
        """Return what the container contract tells of it."""
        return {"modelName": self.name, "modelUrl": str(self.place)}


class ModelStore:
    """The models of one endpoint.

    Args:
        config: of the endpoint, with a ``models`` section and absolute paths.
        secret: at least 16 bytes that make decisions repeatable.
    """

    def __init__(self, config: EndpointConfig, *, secret: bytes) -> None:
        assert config.models is not None
        self.settings: ModelsSettings = config.models
        self.recorder = Recorder(config.name, config.capture)
        self.retries = own_retries(config)
        self.n_loads = self.n_unloads = self.n_failures = 0
        self.n_bytes = 0
        self.loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._config = config
        self._secret = secret
        self._threads = concurrent.futures.ThreadPoolExecutor(N_COMPUTING)
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._slots = asyncio.Semaphore(N_LOADING)
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def find(self, name: str) -> LoadedModel:
        """Return a model, loaded if it was not.

        Raises:
            Refusal: there is none of this name, its bundle is refused, memory is short, or loading takes long.
        """
        model = self.loaded.get(name)
        if model is not None:
            self.loaded.move_to_end(name)
            return model
        return await self._awaited(self._loading.get(name) or self._begin(name, valid_model(name), evict=True))

    async def load(self, name: str, url: str) -> None:
        """Load a model under a name, if there is room.

        Raises:
            Refusal: it is loaded, its bundle is refused, or memory is short.
        """
        valid_model(name)
        if name in self.loaded or name in self._loading:
            raise Refusal(f"model '{name[:63]}' is loaded", kind="conflict")
        await self._awaited(self._begin(name, url, evict=False))

    async def unload(self, name: str) -> None:
        """Unload a model; its memory is free afterwards.

        Raises:
            Refusal: it is not loaded.
        """
        model = self.known(name)
        self._drop(model)
        await model.idle()

    def known(self, name: str) -> LoadedModel:
        """Return a model that is loaded.

        Raises:
            Refusal: it is not.
        """
        model = self.loaded.get(name)
        if model is None:
            raise Refusal(f"model '{plain(name[:100])}' is not loaded", kind="missing")
        self.loaded.move_to_end(name)
        return model

    def close(self) -> None:
        """Write what waits to be recorded and stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.recorder.close()

    async def _awaited(self, loading: asyncio.Task[LoadedModel]) -> LoadedModel:
        try:
            return await asyncio.wait_for(asyncio.shield(loading), self.settings.load_wait_s)
        except TimeoutError:
            raise Refusal("the model is still being loaded; ask again", kind="not_ready", retry_after_s=1.0) from None

    def _begin(self, name: str, url: str, *, evict: bool) -> asyncio.Task[LoadedModel]:
        until, message = self._failed.get(name, (0.0, ""))
        if time.monotonic() < until:
            raise Refusal(message, kind="failed")
        task = asyncio.get_running_loop().create_task(self._load(name, url, evict=evict))
        self._loading[name] = task
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left who waits
        return task

    async def _load(self, name: str, url: str, *, evict: bool) -> LoadedModel:
        try:
            async with self._slots:
                model = await asyncio.to_thread(self._read, name, url)
                self._make_room(model, evict=evict)
        except Refusal:
            raise
        except Exception as error:
            known = isinstance(error, PolicylabError)
            reason = str(error) if known else "it cannot be loaded; the log of the server says why"
            logger.warning("model '%s' is refused", name, exc_info=None if known else error)
            raise self._remembered(name, f"model '{plain(name[:100])}': {reason}") from error
        finally:
            del self._loading[name]
        self.loaded[name] = model
        self.n_bytes += model.n_bytes
        self.n_loads += 1
        return model

    def _read(self, name: str, url: str) -> LoadedModel:
        place = self._place(url)
        variant = VariantSettings(name=VARIANT, bundle=place, exploration=self.settings.exploration)
        config = self._config.model_copy(update={"variants": (variant,), "models": None})
        shared = Shared(self.recorder, self.retries, self._threads, f" of model {name}")
        server = PolicyServer(load_fleet(config), secret=self._secret, shared=shared)
        return LoadedModel(name, place, server=server)

    def _place(self, url: str) -> Path:
        """Return where a bundle lies, which must be below the folder once every link is followed."""
        home = self.settings.folder.resolve()
        try:
            place = (home / url).resolve()
            found = place.exists()
        except (OSError, ValueError):  # names that no file can have
            place, found = home, False
        if not found or place == home or not place.is_relative_to(home):  # what lies elsewhere is not told
            raise Refusal(f"no model '{plain(url[:100])}' in the folder of models", kind="invalid")
        return place

    def _make_room(self, model: LoadedModel, *, evict: bool) -> None:
        limit = int(self.settings.memory_mb * 2**20)
        for other in list(self.loaded.values()) if evict and model.n_bytes <= limit else ():
            if self.n_bytes + model.n_bytes <= limit:
                break
            if not other.n_using:
                self._drop(other)
        if self.n_bytes + model.n_bytes > limit:
            raise Refusal(
                f"no memory for model '{plain(model.name[:100])}' of {model.n_bytes / 2**20:.1f} MB: "
                f"{self.n_bytes / 2**20:.1f} of {self.settings.memory_mb:g} MB are in use (models.memory_mb)",
                kind="full",
            )

    def _drop(self, model: LoadedModel) -> None:
        del self.loaded[model.name]
        self.n_bytes -= model.n_bytes
        self.n_unloads += 1

    def _remembered(self, name: str, message: str) -> Refusal:
        self.n_failures += 1
        self._failed[name] = time.monotonic() + FAILED_S, message
        while len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)
        return Refusal(message, kind="failed")


def valid_model(name: str) -> str:
    """Return ``name`` if a model can have it: parts of a path, none of which begins with a dot.

    >>> valid_model("sites/basel.tar.gz")
    'sites/basel.tar.gz'

    Raises:
        Refusal: none can.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise Refusal(
            f"model '{plain(name[:100])}': a name has letters, digits and _ . + = @ - between slashes, at most "
            f"{MAX_NAME}",
            kind="invalid",
        )
    return name


def _bytes_of(bundle: Bundle) -> int:
    """Return about how much memory a model takes: its arrays, and its network twice, as ONNX Runtime holds it."""
    arrays = sum(entry.n_bytes for entry in bundle.manifest.arrays.values())
    networks = sum(entry.size for name, entry in bundle.manifest.files.items() if name.endswith(".onnx"))
    return MODEL_BYTES + arrays + 2 * networks

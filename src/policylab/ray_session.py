"""Ray, started quietly and always stopped: the one place that calls ``ray.init``.

Source: Ray 2.60, https://docs.ray.io/en/latest/ray-core/api/doc/ray.init.html. What is done about its habits:

| habit of ``ray.init`` | here |
|---|---|
| starts a dashboard, prints a banner, repeats what workers print | off |
| prints what befalls a cluster on standard output, where a command's document goes | logged (level INFO) |
| replaces the process's handler of SIGTERM by ``sys.exit`` | the handler that was there is put back |
| writes ``~/.ray/auth_token``, after which clusters refuse who has no token | a token of this process's own |
| all sessions share ``/tmp/ray``, whose owner is whoever came first | a folder of its own, which is removed |
| fails where the path of the temporary folder is long | the folder is in /tmp then |
| tries for minutes to reach a cluster that is not there | one attempt to connect comes first |

The processes of a local session end with the thread that started it, kill -9 included: start it in the main thread.
After a kill -9 two of them, Ray's agents, first tell the cluster that is no more of its end, for a minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from policylab.errors import RunError, UserError
from policylab.extras import require
from policylab.files import is_locked

OBJECT_STORE_BYTES = 512 * 2**20
"""Shared memory of a local session; weights and batches of a small machine fit, and memory is taken when used."""

MAX_PLACE_BYTES = 107 - len("/ray-12345678/session_2026-11-26_16-08-45_483736_1234567/sockets/plasma_store.10")
"""Longest path of a folder in which Ray can make its sockets, whose names Linux limits to 107 bytes."""

OWNER = "owner.lock"
CONNECT_S = 5.0
HOST_PORT = re.compile(r"[^/]+:\d+")

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def ray_session(
    address: str = "local",
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    setting: str = "launcher.address",
) -> Iterator[Any]:
    """Connect to Ray or start it; yield the module ``ray``, and leave nothing behind.

    Inside a Ray task, an actor or another session the existing connection is used, and left open.

    Args:
        address: ``local`` starts a cluster of this process; ``auto`` finds the one of ``RAY_ADDRESS`` or of this
            machine; ``HOST:PORT`` is one this machine belongs to.
        num_cpus: processors of a local cluster; default: all.
        num_gpus: GPUs of a local cluster; default: all.
        runtime_env: what workers need: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_env.RuntimeEnv.html
        setting: where the address was given, for errors.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: no cluster at ``address``, or it refuses this process.
        RunError: a local cluster could not be started.
    """
    ray = require("ray", extra="ray")
    if ray.is_initialized():
        yield ray
        return
    importlib.import_module("ray._private.worker").print_to_stdstream = _log_notice  # type: ignore[attr-defined]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    if address == "local":
        cluster = _local_cluster(ray, num_cpus=num_cpus, num_gpus=num_gpus, **options)
    else:
        cluster = _remote_cluster(ray, address, setting=setting, **options)
    with cluster:
        yield ray


def _log_notice(notice: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Take the place of Ray's function that prints; with log_to_driver off, all it is given are notices."""
    logger.info("%s", "\n".join(notice["lines"]))


@contextlib.contextmanager
def _local_cluster(ray: Any, **options: Any) -> Iterator[None]:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = ray_folder()
    clear_left(Path(folder).parent)
    owner = hold(folder)
    try:
        try:
            with _same_sigterm_handler():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **options,
                )
        except Exception as error:
            raise RunError(f"Ray could not be started on this machine: {error}") from error
        yield
    finally:
        with _same_sigterm_handler():
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        owner.close()


def hold(folder: str) -> IO[str]:
    """Return the lock file of a folder for Ray's files: nobody clears the folder while it is open."""
    path = Path(folder) / OWNER
    file = path.with_suffix(".new").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    path.with_suffix(".new").rename(path)  # it is never seen without its lock
    return file


def clear_left(place: Path) -> None:
    """Remove the folders of this user's below ``place`` whose process was killed before it could."""
    for path in place.glob(f"ray-*/{OWNER}"):
        with contextlib.suppress(OSError):
            if path.parent.lstat().st_uid == os.getuid() and not is_locked(path):
                shutil.rmtree(path.parent, ignore_errors=True)


def ray_folder() -> str:
    """Make a folder for Ray's files: in the temporary folder, or in /tmp where sockets have too long a path there."""
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=place if len(os.fsencode(place)) <= MAX_PLACE_BYTES else "/tmp")


@contextlib.contextmanager
def _remote_cluster(ray: Any, address: str, *, setting: str, **options: Any) -> Iterator[None]:
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else ""
    told = f"RAY_ADDRESS={named}" if named else f"{setting}={address}"
    if address != "auto" or HOST_PORT.fullmatch(named):
        _check_reachable(named or address, told)
    try:
        with _same_sigterm_handler():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        remedy = "unset RAY_ADDRESS" if named else "use address=local"
        raise UserError(
            f"{told}: no Ray cluster that takes this machine: {error}; start one here with `ray start`, "
            f"{remedy}, or submit to a cluster elsewhere with `policylab jobs submit`"
        ) from error
    try:
        yield
    finally:
        with _same_sigterm_handler():
            ray.shutdown()


def _check_reachable(address: str, setting: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{setting}: cannot be reached ({error}); "
            "is the cluster's head running (`ray start --head`) and is this its HOST:PORT?"
        ) from None


@contextlib.contextmanager
def _same_sigterm_handler() -> Iterator[None]:
    """Put back the handler of SIGTERM that Ray replaces, in the main thread, which alone can have replaced it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)

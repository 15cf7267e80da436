"""Input channels: which objects a host gets, and how they become files or streams in its /opt/ml/input/data.

| mode | here |
|---|---|
| File | copies of the objects |
| FastFile | the same, but read-only where hosts are isolated; the service streams them instead |
| Pipe | FIFOs ``CHANNEL_EPOCH`` fed with the objects one after the other |
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import RunError, StorageError
from policylab.launchers.sagemaker.emulator.hosts import Host, channels_of, s3_source
from policylab.launchers.sagemaker.object_store import ObjectStore, relative_name
from policylab.seeding import generator

_POLL_S = 0.02


class DownloadError(RunError):
    """A channel's data cannot be brought to the hosts; the job fails by a ClientError."""


Objects = list[tuple[str, str]]
"""Name of each object and the path it gets below the channel's folder."""


def channel_objects(store: ObjectStore, channel: Mapping[str, Any]) -> Objects:
    """Return a channel's objects, sorted by path, or shuffled if the channel says so.

    A prefix is a folder here, or one object's whole name. On the service it also matches longer names (``data`` finds
    ``data-old/x`` too), which no one wants.

    Raises:
        DownloadError: there are none, or a name would lead out of the channel's folder.
    """
    source = s3_source(channel)
    uri: str = source["S3Uri"]
    try:
        found = _manifest(store, uri) if source["S3DataType"] == "ManifestFile" else _below(store, uri)
    except (StorageError, ValueError, KeyError, TypeError) as error:
        raise DownloadError(f"Data download failed for channel {channel['ChannelName']}: {error}") from error
    if not found:
        raise DownloadError(f"Data download failed for channel {channel['ChannelName']}: no objects at {uri}")
    found.sort(key=lambda one: one[1])
    if "ShuffleConfig" in channel:
        _shuffle(found, seed=channel["ShuffleConfig"]["Seed"], epoch=0)
    return found


def _below(store: ObjectStore, uri: str) -> Objects:
    folder = uri.rstrip("/")
    found = [one.uri for one in store.list(f"{folder}/") if not one.uri.endswith("/")]
    if not found and not uri.endswith("/") and store.exists(uri):
        return [(uri, uri.rpartition("/")[2])]
    return [(one, relative_name(one, folder)) for one in found]


def _manifest(store: ObjectStore, uri: str) -> Objects:
    """Return the objects a manifest names: ``[{"prefix": "s3://bucket/a/"}, "relative/name", ...]``."""
    first, *names = json.loads(store.get_bytes(uri))
    prefix: str = first["prefix"]
    return [(f"{prefix}{name}", relative_name(f"s3://-/{name}", "s3://-")) for name in names]


def _shuffle(objects: Objects, *, seed: int, epoch: int) -> None:
    order = generator(seed, "channel", epoch).permutation(len(objects))
    objects[:] = [objects[int(index)] for index in order]


def share(objects: Sequence[tuple[str, str]], *, index: int, of: int) -> Objects:
    """Return what one of ``of`` hosts gets of a channel that is sharded by key.

    >>> share([("s3://b/x", "x"), ("s3://b/y", "y"), ("s3://b/z", "z")], index=0, of=2)
    [('s3://b/x', 'x'), ('s3://b/z', 'z')]
    """
    return list(objects[index::of])


def host_objects(
    request: Mapping[str, Any], channel: Mapping[str, Any], *, objects: Objects, hosts: Sequence[Host], host: Host
) -> Objects:
    """Return the objects of a channel that a host gets."""
    if s3_source(channel).get("S3DataDistributionType") != "ShardedByS3Key":
        return objects
    name = channel["ChannelName"]
    sharing = [one for one in hosts if name in {c["ChannelName"] for c in channels_of(request, one)}]
    return share(objects, index=sharing.index(host), of=len(sharing))


def download(store: ObjectStore, objects: Objects, *, folder: Path) -> None:
    """Write objects as files below ``folder``.

    Raises:
        DownloadError: one cannot be read, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for uri, path in objects:
        try:
            store.get_file(uri, folder / path)
        except StorageError as error:
            raise DownloadError(f"Data download failed for channel {folder.name}: {error}") from error


def copy_local(source: Path, target: Path) -> None:
    """Copy a local folder that stands in for a channel's source."""
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise DownloadError(f"Data download failed for channel {target.name}: {error}") from error


class PipeFeeder(threading.Thread):
    """Feeds the FIFOs of one Pipe channel on one host, epoch after epoch, until it is stopped.

    The first FIFO is there at once; the next appears when one was read to its end or closed by its reader.

    Args:
        folder: the host's /opt/ml/input/data.
        channel: the request's entry.
        files: the channel's files, in order.
    """

    def __init__(self, folder: Path, channel: Mapping[str, Any], *, files: Sequence[Path]) -> None:
        super().__init__(daemon=True, name=f"pipe {channel['ChannelName']}")
        self._folder = folder
        self._channel = channel
        self._files = list(files)
        self._stopped = threading.Event()
        os.mkfifo(self._fifo(0), 0o666)

    def run(self) -> None:
        """Feed one epoch after the other."""
        epoch = 0
        while not self._stopped.is_set():
            try:
                self._feed(self._fifo(epoch), epoch=epoch)
                os.mkfifo(self._fifo(epoch + 1), 0o666)
                self._fifo(epoch).unlink(missing_ok=True)
            except OSError:  # the host's files are gone
                return
            epoch += 1

    def _fifo(self, epoch: int) -> Path:
        return self._folder / f"{self._channel['ChannelName']}_{epoch}"

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()

    def _feed(self, fifo: Path, *, epoch: int) -> None:
        handle = self._opened(fifo)
        if handle is None:
            return
        try:
            for path in self._order(epoch):
                with gzip.open(path) if self._channel.get("CompressionType") == "Gzip" else path.open("rb") as content:
                    while block := content.read(65_536):
                        self._write(handle, block)
        except BrokenPipeError:
            pass  # the reader has enough of this epoch
        finally:
            os.close(handle)

    def _order(self, epoch: int) -> list[Path]:
        if "ShuffleConfig" not in self._channel:
            return self._files
        order = generator(self._channel["ShuffleConfig"]["Seed"], "channel", epoch).permutation(len(self._files))
        return [self._files[int(index)] for index in order]

    def _opened(self, fifo: Path) -> int | None:
        """Open the FIFO when somebody reads it; None if the feeder is stopped before."""
        while not self._stopped.is_set():
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                self._stopped.wait(_POLL_S)
        return None

    def _write(self, handle: int, block: bytes) -> None:
        while block and not self._stopped.is_set():
            try:
                block = block[os.write(handle, block) :]
            except BlockingIOError:
                self._stopped.wait(_POLL_S)

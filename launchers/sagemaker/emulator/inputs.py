"""What hosts find when they start: their configuration files, channels and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.launchers.sagemaker.emulator.channels import (
    Objects,
    PipeFeeder,
    channel_objects,
    copy_local,
    download,
    host_objects,
)
from policylab.launchers.sagemaker.emulator.checkpoints import CheckpointSync
from policylab.launchers.sagemaker.emulator.hosts import Host, channels_of, checkpoint_path, input_mode, write_tree
from policylab.launchers.sagemaker.emulator.work import Work


class Inputs:
    """Brings the inputs of a job to its hosts and keeps its pipes fed.

    Args:
        work: the job's.
        trees: each host's /opt/ml.
    """

    def __init__(self, work: Work, trees: Mapping[str, Path]) -> None:
        self._work = work
        self._trees = trees
        self._objects: dict[str, Objects] = {}
        self._feeders: list[PipeFeeder] = []

    def bring(self, *, interface: str) -> None:
        """Write every host's files and begin to feed its pipes.

        Raises:
            DownloadError: a channel's data cannot be brought.
        """
        request = self._work.request
        for host in self._work.hosts:
            write_tree(request, self._work.hosts, current=host, ml=self._trees[host.name], interface=interface)
            for channel in channels_of(request, host):
                self._bring_channel(channel, host=host)

    def _bring_channel(self, channel: Mapping[str, Any], *, host: Host) -> None:
        work, name = self._work, channel["ChannelName"]
        data = self._trees[host.name] / "input/data"
        is_pipe = input_mode(work.request, channel) == "Pipe"
        target = work.folder / "hosts" / host.name / "pipes" / name if is_pipe else data / name
        if name in work.settings.folders:
            copy_local(work.settings.folders[name], target)
            paths = [path for path in sorted(target.rglob("*")) if path.is_file()]
        else:
            if name not in self._objects:
                self._objects[name] = channel_objects(work.store, channel)
            mine = host_objects(work.request, channel, objects=self._objects[name], hosts=work.hosts, host=host)
            download(work.store, mine, folder=target)
            paths = [target / path for _, path in mine]
        if is_pipe:
            self._feeders.append(PipeFeeder(data, channel, files=paths))
            self._feeders[-1].start()

    def restore_checkpoints(self) -> CheckpointSync | None:
        """Restore the checkpoints on every host; return what keeps them in the store, None if the job has none.

        Raises:
            StorageError: one cannot be restored.
        """
        if "CheckpointConfig" not in self._work.request:
            return None
        below = checkpoint_path(self._work.request)
        folders = {host: ml / below for host, ml in self._trees.items()}
        sync = CheckpointSync(self._work.store, self._work.request["CheckpointConfig"]["S3Uri"], folders=folders)
        sync.restore()
        return sync

    def close(self) -> None:
        """Stop feeding."""
        for feeder in self._feeders:
            feeder.stop()

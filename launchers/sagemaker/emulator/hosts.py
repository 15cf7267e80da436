"""The hosts of a training job: their names, groups and addresses, and the files that tell a container about them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policylab.seeding import generator

HOMOGENEOUS = "homogeneousCluster"
"""The group that the service reports for a request without instance groups."""

INTERFACE = "eth0"


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """One instance of a job.

    Attributes:
        number: from 1.
        group: its instance group.
        instance_type: what the request asks for; here it is this machine.
    """

    number: int
    group: str
    instance_type: str

    @property
    def name(self) -> str:
        """``algo-N``."""
        return f"algo-{self.number}"

    @property
    def address(self) -> str:
        """In the job's own network."""
        return f"10.77.0.{self.number}"


def hosts_of(request: Mapping[str, Any]) -> list[Host]:
    """Return a job's hosts in the order in which its lists name them, which is a function of the job's name.

    The service's lists are unsorted, and algo-1 need not be in the first group: with several hosts the order here is
    never the sorted one, and with several groups algo-1 never belongs to the first.

    >>> [host.name for host in hosts_of({"TrainingJobName": "a", "ResourceConfig": {"InstanceCount": 3}})]
    ['algo-3', 'algo-1', 'algo-2']
    """
    resources = request["ResourceConfig"]
    groups = [
        (group["InstanceGroupName"], group["InstanceType"], group["InstanceCount"])
        for group in resources.get("InstanceGroups", [])
    ]
    preferred = (resources.get("InstancePreferences") or [{}])[0]
    kind = resources.get("InstanceType") or preferred.get("InstanceType", "unknown")
    count = resources.get("InstanceCount") or preferred.get("InstanceCount", 1)
    groups = groups or [(HOMOGENEOUS, kind, count)]
    numbers = _numbers(sum(group[2] for group in groups), first=groups[0][2], name=request["TrainingJobName"])
    return [Host(numbers.pop(0), name, kind) for name, kind, count in groups for _ in range(count)]


def _numbers(count: int, *, first: int, name: str) -> list[int]:
    """Return 1..count in a fixed disorder; 1 is not among the ``first`` unless those are all."""
    rng = generator(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]), "hosts")
    numbers = [int(number) for number in rng.permutation(np.arange(1, count + 1))]
    if numbers == sorted(numbers):
        numbers.append(numbers.pop(0))
    if first < count and numbers.index(1) < first:
        here = numbers.index(1)
        numbers[here], numbers[first] = numbers[first], numbers[here]
    return numbers


def resource_config(hosts: Sequence[Host], current: Host, *, interface: str = INTERFACE) -> dict[str, Any]:
    """Return the content of ``resourceconfig.json`` on the host ``current``."""
    groups: dict[str, list[Host]] = {}
    for host in hosts:
        groups.setdefault(host.group, []).append(host)
    return {
        "current_host": current.name,
        "current_instance_type": current.instance_type,
        "current_group_name": current.group,
        "hosts": [host.name for host in hosts],
        "instance_groups": [
            {
                "instance_group_name": name,
                "instance_type": members[0].instance_type,
                "hosts": [host.name for host in members],
            }
            for name, members in groups.items()
        ],
        "network_interface_name": interface,
    }


def channels_of(request: Mapping[str, Any], host: Host) -> list[dict[str, Any]]:
    """Return the channels that a host gets: all, or those that name its group."""
    named = ((channel, s3_source(channel).get("InstanceGroupNames")) for channel in request.get("InputDataConfig", []))
    return [channel for channel, groups in named if not groups or host.group in groups]


def s3_source(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a channel's S3DataSource, empty if it reads a file system."""
    source: dict[str, Any] = channel["DataSource"].get("S3DataSource", {})
    return source


def input_mode(request: Mapping[str, Any], channel: Mapping[str, Any]) -> str:
    """Return File, FastFile or Pipe."""
    mode: str = channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"]
    return mode


def write_tree(request: Mapping[str, Any], hosts: Sequence[Host], *, current: Host, ml: Path, interface: str) -> None:
    """Write the folders and the configuration files of the host ``current`` below ``ml``, its /opt/ml."""
    for folder in ("input/config", "input/data", "model", "output/data", "sagemaker/warmpoolcache"):
        (ml / folder).mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {
        "hyperparameters": request.get("HyperParameters", {}),
        "inputdataconfig": {
            channel["ChannelName"]: {
                **({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {}),
                "TrainingInputMode": input_mode(request, channel),
                "S3DistributionType": s3_source(channel).get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in channels_of(request, current)
        },
        "resourceconfig": resource_config(hosts, current, interface=interface),
    }
    if "CheckpointConfig" in request:
        local = checkpoint_path(request)
        files["checkpointconfig"] = {"LocalPath": f"/opt/ml/{local}"}
        (ml / local).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (ml / "input/config" / f"{name}.json").write_text(json.dumps(content))


def checkpoint_path(request: Mapping[str, Any]) -> str:
    """Return the folder of checkpoints, relative to /opt/ml."""
    path: str = request["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints")
    return path.removeprefix("/opt/ml").strip("/")

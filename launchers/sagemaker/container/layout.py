"""The contract of a training container: where its files lie, who its hosts are, and which of them leads.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.errors import UserError, did_you_mean

ROOT = "/opt/ml"
HOMOGENEOUS = "homogeneousCluster"
"""Name that the service gives to the one group of a homogeneous job."""

RUN_CHANNEL = "run"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The folders of the contract below ``root``."""

    root: Path

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Layout:
        """Return the layout below POLICYLAB_ML_ROOT, by default /opt/ml."""
        return cls(Path(environment.get("POLICYLAB_ML_ROOT", ROOT)))

    def channel(self, name: str) -> Path:
        """The folder of an input channel."""
        return self.root / "input" / "data" / name

    def config(self, name: str) -> Path:
        """A file of the service about the job."""
        return self.root / "input" / "config" / f"{name}.json"

    @property
    def spec(self) -> Path:
        """The run that the job executes."""
        return self.channel(RUN_CHANNEL) / "spec.json"

    @property
    def model(self) -> Path:
        """Becomes the model artefact; hosts' files are merged, so only the head writes."""
        return self.root / "model"

    @property
    def failure(self) -> Path:
        """Its first 1024 characters become the job's FailureReason."""
        return self.root / "output" / "failure"

    @property
    def checkpoints(self) -> Path:
        """Restored on every host before the start and uploaded continuously; only the head writes."""
        file = self.config("checkpointconfig")
        try:
            given = Path(json.loads(file.read_bytes()).get("LocalPath") or f"{ROOT}/checkpoints")
        except FileNotFoundError:
            return self.root / "checkpoints"
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(f"{file}: damaged: {error}") from None
        return self.root / given.relative_to(ROOT) if given.is_relative_to(ROOT) else given


@dataclasses.dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a job, as one of them sees them.

    Attributes:
        current: this host.
        group: this host's group.
        groups: group -> its hosts, in natural order.
        head: the host that leads.
    """

    current: str
    group: str
    groups: Mapping[str, tuple[str, ...]]
    head: str

    @property
    def leads(self) -> bool:
        """Whether this host is the head."""
        return self.current == self.head

    @property
    def all(self) -> tuple[str, ...]:
        """Every host, in natural order."""
        return natural_order(host for hosts in self.groups.values() for host in hosts)

    def group_of(self, host: str) -> str:
        """The group of a host."""
        return next(group for group, hosts in self.groups.items() if host in hosts)


def read_hosts(layout: Layout, *, head_group: str | None = None) -> Hosts:
    """Read resourceconfig.json and elect the head: the first host of ``head_group``, else of all.

    Neither algo-1 nor the first name listed need belong to the group that leads, so both are ignored.

    Raises:
        UserError: the file is missing or damaged, or there is no such group.
    """
    path = layout.config("resourceconfig")
    try:
        document = json.loads(path.read_bytes())
        groups = _groups(document)
        current, group = str(document["current_host"]), document.get("current_group_name")
        everyone = natural_order(host for hosts in groups.values() for host in hosts)
        if current not in everyone:
            raise ValueError(f"current_host {current!r} is not among the hosts {', '.join(everyone)}")
        group = group or next(name for name, hosts in groups.items() if current in hosts)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `policylab container` runs inside a training job") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged: {type(error).__name__}: {error}") from None
    if head_group is not None and head_group not in groups:
        hint = did_you_mean(head_group, groups)
        raise UserError(f"POLICYLAB_HEAD_GROUP={head_group}: no such group{hint} (groups: {', '.join(groups)})")
    return Hosts(current, group, groups, head=groups[head_group][0] if head_group else everyone[0])


def _groups(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    listed = document.get("instance_groups") or [
        {"instance_group_name": document.get("current_group_name") or HOMOGENEOUS, "hosts": document["hosts"]}
    ]
    return {str(group["instance_group_name"]): natural_order(group["hosts"]) for group in listed if group["hosts"]}


def natural_order(names: Any) -> tuple[str, ...]:
    """Return names sorted as people count.

    >>> natural_order(["algo-10", "algo-2"])
    ('algo-2', 'algo-10')
    """

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    return tuple(sorted(names, key=key))

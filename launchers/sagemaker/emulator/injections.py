"""Trouble on purpose: what befalls a job, when, and whom.

| written | what happens |
|---|---|
| ``interrupt@5`` | the spot instances are taken away 5 s after training began, and the job starts again |
| ``fault@5`` | the service fails: every host vanishes without a signal (RetryStrategy decides what follows) |
| ``stop@5`` | somebody stops the job |
| ``kill@5:algo-2`` | a host is lost |
| ``unplug@5:algo-2`` | a host's network goes dead while its processes go on |
| ``late@5:algo-2`` | a host's command begins 5 s after the others' |
| ``missing:algo-2`` | a host's command never begins |

Seconds count from the first time that the job trains; each happens once. ``late`` and ``missing`` hold for every start.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from policylab.errors import ConfigError, did_you_mean

OF_JOBS = ("interrupt", "fault", "stop")
OF_HOSTS = ("kill", "unplug", "late", "missing")

_FORM = re.compile(r"(?P<kind>[a-z]+)(@(?P<at_s>\d+(\.\d+)?))?(:(?P<host>[\w-]+))?")


@dataclasses.dataclass(frozen=True, slots=True)
class Injection:
    """One piece of trouble; ``host`` is None for what befalls the whole job."""

    kind: str
    at_s: float = 0.0
    host: str | None = None


def parse_injection(text: str) -> Injection:
    """Return what ``text`` describes.

    >>> parse_injection("kill@2.5:algo-2")
    Injection(kind='kill', at_s=2.5, host='algo-2')

    Raises:
        ConfigError: it has another form.
    """
    found = _FORM.fullmatch(text)
    known = (*OF_JOBS, *OF_HOSTS)
    if not found or found["kind"] not in known:
        hint = did_you_mean(text.partition("@")[0].partition(":")[0], known)
        raise ConfigError(f"{text!r}: an injection is KIND@SECONDS or KIND@SECONDS:HOST with KIND of {known}{hint}")
    if (found["kind"] in OF_HOSTS) != bool(found["host"]):
        wanted = "names its host, as in kill@5:algo-2" if found["kind"] in OF_HOSTS else "befalls the whole job"
        raise ConfigError(f"{text!r}: {found['kind']} {wanted}")
    if (found["kind"] == "missing") == bool(found["at_s"]):
        wanted = "has no time" if found["kind"] == "missing" else "needs a time, as in kill@5:algo-2"
        raise ConfigError(f"{text!r}: {found['kind']} {wanted}")
    return Injection(found["kind"], float(found["at_s"] or 0.0), found["host"])


def check_injections(injections: Iterable[Injection], *, hosts: Iterable[str], spot: bool) -> None:
    """Refuse trouble that cannot befall a job.

    Raises:
        ConfigError: a host that the job lacks, or an interruption of instances that are not spot.
    """
    names = list(hosts)
    for one in injections:
        if one.host is not None and one.host not in names:
            raise ConfigError(f"{one.kind}:{one.host}: the job has no such host (known: {', '.join(sorted(names))})")
        if one.kind == "interrupt" and not spot:
            raise ConfigError(
                "interrupt: only spot instances are taken away; set EnableManagedSpotTraining or use fault"
            )

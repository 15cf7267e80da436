"""Rules that a training job and a tuning job's definition of one share; fields carry the same names in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from policylab.aws.request_view import View
from policylab.findings import Finding

MAX_RUNTIME_S = 28 * 86_400


def stopping_findings(job: View, *, max_runtime_s: int = MAX_RUNTIME_S) -> Iterator[Finding]:
    """Check run time, waiting time and what spot training needs."""
    condition = job["StoppingCondition"]
    runtime, wait = condition["MaxRuntimeInSeconds"], condition["MaxWaitTimeInSeconds"]
    if runtime.number is not None and not 1 <= runtime.number <= max_runtime_s:
        yield runtime.found(f"1 to {max_runtime_s} seconds", "resume longer trainings from a checkpoint")
    spot = job["EnableManagedSpotTraining"]
    if wait.given and spot.value is not True:
        yield wait.found("is for spot training only", "remove it or set EnableManagedSpotTraining")
    if spot.value is not True:
        return
    if wait.number is None or wait.number < (runtime.number or 0):
        yield wait.found(
            "spot training needs a waiting time of at least MaxRuntimeInSeconds",
            f"set it to {int(runtime.number or 86_400)} or more",
        )
    if not job["CheckpointConfig"]["S3Uri"].given:
        yield spot.found(
            "an interrupted spot job starts again from nothing without CheckpointConfig",
            "add CheckpointConfig.S3Uri",
            severity="warning",
        )


def repeated_names(channels: View) -> Iterator[Finding]:
    """Check that no two channels have the same name."""
    for name, count in Counter(channel["ChannelName"].text for channel in channels.items()).items():
        if name and count > 1:
            yield channels.found("channel names must differ", "rename one of the channels", value=name)


def one_of(section: View, names: tuple[str, str]) -> Iterator[Finding]:
    """Check that exactly one of two fields is there."""
    given = [name for name in names if section[name].given]
    if len(given) != 1 and isinstance(section.value, Mapping):
        what = "both" if given else "neither"
        yield section.found(f"needs exactly one of {names[0]} and {names[1]}", "keep or add one of them", value=what)

"""A finished SageMaker tuning job of an experiment as a study of this project.

| file in the run directory | content |
|---|---|
| study/sagemaker.json | the record: see `policylab.tuning.sagemaker_record` |
| study/events.jsonl | its training jobs as trials of one seed each: see `policylab.tuning.log` |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policylab.errors import ConfigError
from policylab.experiments.rundir import IMPORTED, RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import with_default
from policylab.experiments.study_request import all_static
from policylab.experiments.tuning_jobs import drawn_configuration
from policylab.files import write_atomic
from policylab.launchers.sagemaker.service import patiently
from policylab.tuning.log import EventLog
from policylab.tuning.sagemaker_record import parent_of_record
from policylab.tuning.study import study_facts
from policylab.tuning.study_facts import StudyFacts, experiment_facts

ENDED = ("Completed", "Stopped", "Failed")
REMEDY = "import it with the experiment it was made from"


def fetch_record(service: Any, name: str) -> dict[str, Any]:
    """Return the record of a tuning job, as `policylab.tuning.sagemaker_record` describes it.

    Raises:
        UserError, RunError: AWS refuses or fails.
    """
    record = patiently(service.describe_hyper_parameter_tuning_job, HyperParameterTuningJobName=name)
    query: dict[str, Any] = {"HyperParameterTuningJobName": name, "SortBy": "CreationTime", "SortOrder": "Ascending"}
    jobs: list[Any] = []
    while True:
        page = patiently(service.list_training_jobs_for_hyper_parameter_tuning_job, **query)
        jobs += page["TrainingJobSummaries"]
        if not page.get("NextToken"):
            record = {**record, "TrainingJobSummaries": jobs}
            record.pop("ResponseMetadata", None)
            plain: dict[str, Any] = json.loads(json.dumps(record, default=str))
            return plain
        query["NextToken"] = page["NextToken"]


def import_study(config: ExperimentConfig, record: Any, *, out: Path, place: str = "record") -> RunDirectory:
    """Write a finished tuning job of an experiment as a run directory below ``out``, a study like any other.

    A training job that was stopped early has no value at the full budget: it counts as a trial that was given up, and
    its value is in the record alone, which can be a parent itself.

    Args:
        config: the experiment that the tuning job was made from.
        record: see `policylab.tuning.sagemaker_record`.
        out: folder that receives the run directory.
        place: of the record, in messages.

    Raises:
        ConfigError: the record lacks something, is of another metric, searched other parameters, trained with other
            values of what is not searched, or is not over.
        StorageError: the run directory cannot be written.
    """
    assert config.search is not None
    facts = parent_of_record(record, place=place).facts
    name = facts.name
    if (facts.metric, facts.mode) != (config.search.metric, config.search.mode):
        raise ConfigError(
            f"{name} has optimised {facts.metric} ({facts.mode}), the experiment {config.search.metric} "
            f"({config.search.mode}); {REMEDY}"
        )
    if record["HyperParameterTuningJobStatus"] not in ENDED:
        raise ConfigError(
            f"{name} is under way ({record['HyperParameterTuningJobStatus']}); import it when it has ended"
        )
    if differing := list(_differing(config, facts)):
        raise ConfigError("\n".join(f"{name}: {line}; {REMEDY}" for line in differing))
    events = list(_events(config, record, name=name))
    run = create_run(config, parent=out)
    write_atomic(run.path / IMPORTED, json.dumps(record, indent=1, default=str) + "\n")
    log = EventLog(run.path / "study" / "events.jsonl")
    log.open(study_facts(config.search.model_dump(mode="json", exclude={"storage"}), seed=config.seeds.root))
    log.extend([*events, {"event": "complete", "reason": f"imported from SageMaker tuning job {name}"}])
    run.set_status("finished")
    return run


def _differing(config: ExperimentConfig, facts: StudyFacts) -> Iterator[str]:
    """Yield what a tuning job searched or fixed otherwise than the experiment does."""
    assert config.search is not None
    space, data = config.search.space, config.model_dump(mode="json")
    for path in facts.space.parameters:
        if path not in space.parameters:
            yield f"{path} was searched there, and is not by the experiment"
    own = {**experiment_facts(data, data["search"], name=config.name).static, **all_static(config)}
    for path, value in facts.static.items():
        if path in own:
            if own[path] != value:
                yield f"{path} was {value!r} there, and is {own[path]!r} in the experiment"
        elif path not in space.parameters and path.partition(".")[0] in data:
            yield f"{path} was {value!r} there, and is no setting of the experiment"


def _events(config: ExperimentConfig, record: Mapping[str, Any], *, name: str) -> Iterator[dict[str, Any]]:
    assert config.search is not None
    space, budget = with_default(config), config.budget.steps
    for trial, job in enumerate(record["TrainingJobSummaries"]):
        configuration = drawn_configuration(space, job.get("TunedHyperParameters", {}))
        if not space.contains(configuration):
            raise ConfigError(
                f"{name}: {job.get('TrainingJobName')} was trained with {configuration}, which is not in the "
                f"experiment's search space; {REMEDY}"
            )
        at = {"trial": trial, "seed": 0}
        why = f"training job {job.get('TrainingJobName')}"
        yield {"event": "start", **at, "configuration": configuration, "until": budget, "reason": why}
        final, status = job.get("FinalHyperParameterTuningJobObjectiveMetric"), job.get("TrainingJobStatus")
        if status == "Stopped":
            yield {"event": "stop", "trial": trial, "seed": None, "reason": "stopped early by SageMaker"}
        elif final is not None and status in ("Completed", None):
            value = config.search.sign * float(final["Value"])
            yield {"event": "report", **at, "resource": budget, "value": value}
            yield {"event": "end", **at, "error": None}
        else:
            reason = job.get("FailureReason") or "no value of the objective was found in its log"
            yield {"event": "end", **at, "error": f"{status}: {reason}"}

"""SageMaker tuning jobs of an experiment: what they execute, and a finished one as a study of this project.

| file in the run directory | content |
|---|---|
| study/sagemaker.json | the record: see `policylab.tuning.sagemaker_record` |
| study/events.jsonl | its training jobs as trials of one seed each: see `policylab.tuning.log` |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from policylab.aws.request_view import View
from policylab.errors import ConfigError, UserError
from policylab.experiments.rundir import RunDirectory, create_run
from policylab.experiments.schema import ExperimentConfig, load_file
from policylab.experiments.search import with_default
from policylab.experiments.study_request import request_document
from policylab.files import content_hash, write_atomic
from policylab.findings import Finding
from policylab.launchers import LocalSettings
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.outgoing import source_bundle
from policylab.launchers.sagemaker.prices import estimate, price_table, study_most
from policylab.launchers.sagemaker.service import ServiceRefusalError, patiently
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.training_rules import environment_findings
from policylab.launchers.sagemaker.tuning_definition import TOOLKIT, training_definition
from policylab.runspec import RunSpec
from policylab.tuning.hyperparameter_text import from_hyperparameters
from policylab.tuning.log import EventLog
from policylab.tuning.sagemaker_record import parent_of_record
from policylab.tuning.space import Space
from policylab.tuning.study import study_facts

RECORD = "study/sagemaker.json"
ENDED = ("Completed", "Stopped", "Failed")


def spec_of(experiment: Path, hyperparameters: Mapping[str, str]) -> RunSpec:
    """Return the run that a training job of a tuning job executes: the first tuning seed, with the values drawn.

    Args:
        experiment: the experiment's file, as it was sent.
        hyperparameters: of the job; those that are not searched are left alone.

    Raises:
        ConfigError: the experiment has no search, or does not take a value.
    """
    config = load_file(experiment)
    if config.search is None:
        raise ConfigError(f"{experiment}: there is no search section, so hyperparameters have no meaning")
    drawn = _configuration(with_default(config), hyperparameters)
    return config.trial(drawn).spec("tune", 0, config_hash=config.config_hash)


@dataclasses.dataclass(frozen=True, slots=True)
class OutgoingStudy:
    """A search as a tuning job that can be sent.

    Attributes:
        document: see `policylab.experiments.study_request.request_document`; with ``price``: currency, basis, per_hour,
            most_per_job and most (None if the request sets no limit).
        files: name in the store -> content that must lie there.
    """

    document: dict[str, Any]
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The tuning job's name, a function of what it does: sent again, it is the same job."""
        return str(self.document["request"]["HyperParameterTuningJobName"])

    def send(self, service: Any, store: ObjectStore) -> bool:
        """Upload and send; return False if the tuning job was there already.

        Args:
            service: ``boto3.client("sagemaker")``.
            store: of objects.

        Raises:
            ConfigError: every error of the request.
            UserError, RunError: AWS refuses or fails.
        """
        if self.document["errors"]:
            raise ConfigError("\n".join(self.document["errors"]))
        for uri, content in self.files.items():
            if not store.exists(uri):
                store.put_bytes(content, uri)
        try:
            patiently(service.create_hyper_parameter_tuning_job, **self.document["request"])
        except ServiceRefusalError as refused:
            if refused.code != "ResourceInUse":
                raise
            return False
        return True


def outgoing_study(config: ExperimentConfig) -> OutgoingStudy:
    """Return the search of an experiment whose launcher is SageMaker as a tuning job, priced.

    Raises:
        ConfigError: the launcher is another one.
        UserError: it is to be emulated.
    """
    settings = config.launcher
    if not isinstance(settings, SageMakerSettings):
        raise ConfigError(f"launcher '{settings.kind}' has no account to send to; add --launcher sagemaker")
    if settings.emulate:
        raise UserError(
            "a tuning job is SageMaker's own search, which is not emulated; search over emulated jobs with `policylab "
            "tune --launcher sagemaker --emulate`"
        )
    assert config.search is not None
    bundle = source_bundle(settings, config.spec("tune", 0))
    sent = config.model_copy(update={"launcher": LocalSettings()})
    experiment = yaml.safe_dump(sent.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()
    definition, place = training_definition(
        settings, code_hash=bundle.hash, experiment=experiment, metric=config.search.metric
    )
    document = request_document(config, training_job={**definition, "StaticHyperParameters": TOOLKIT})
    request = document["request"]
    tags = {**settings.tags, "policylab:experiment": config.name}
    request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    digest = content_hash(request)[:10]
    request["HyperParameterTuningJobName"] = f"{request['HyperParameterTuningJobName'][:21].rstrip('-')}-{digest}"
    _check_and_price(document, settings)
    code = definition["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    files = {f"{code}{name}": content for name, content in bundle.files.items()}
    return OutgoingStudy(document, {**files, place: experiment})


def _check_and_price(document: dict[str, Any], settings: SageMakerSettings) -> None:
    """Add the price, and what our settings ask for that SageMaker itself does not look after."""
    request = document["request"]
    prices = price_table(Path(settings.price_table)) if settings.price_table else price_table()
    each, most = estimate(request["TrainingJobDefinition"], prices), study_most(request, prices)
    document["price"] = {
        "currency": prices.currency,
        "basis": each.basis,
        "per_hour": each.per_hour,
        "most_per_job": each.most,
        "most": most,
    }
    findings = [*environment_findings(View(request["TrainingJobDefinition"], "TrainingJobDefinition"))]
    if settings.max_cost_usd is not None:
        findings += _cap_findings(settings.max_cost_usd, most, unpriced=each.unpriced)
    document["errors"] += [str(finding) for finding in findings]


def _cap_findings(cap: float, most: float | None, *, unpriced: tuple[str, ...]) -> Iterator[Finding]:
    """Check that a tuning job holds the cap by its own limits, for SageMaker knows none of cost."""
    path, rule = "launcher.max_cost_usd", "a tuning job holds it only if all its jobs together may not pass it"
    if unpriced:
        yield Finding(path, f"the price table lacks {', '.join(unpriced)}", cap, "add it to your price table")
    elif most is None:
        yield Finding(path, f"{rule}: without end", cap, "set search.limits.trials or search.limits.wall_clock_s")
    elif most > cap:
        remedy = "raise it, or lower search.limits or launcher.max_runtime_s"
        yield Finding(path, f"{rule}: up to {most:.2f}", cap, remedy)


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


def import_study(config: ExperimentConfig, record: Mapping[str, Any], *, out: Path) -> RunDirectory:
    """Write a finished tuning job of an experiment as a run directory below ``out``, a study like any other.

    A training job that was stopped early has no value at the full budget: it counts as a trial that was given up, and
    its value is in the record alone, which can be a parent itself.

    Raises:
        ConfigError: the record lacks something, is of another metric, searched other parameters, or is not over.
        StorageError: the run directory cannot be written.
    """
    assert config.search is not None
    name = str(record.get("HyperParameterTuningJobName"))
    facts = parent_of_record(record, place=name).facts
    if (facts.metric, facts.mode) != (config.search.metric, config.search.mode):
        raise ConfigError(
            f"{name} has optimised {facts.metric} ({facts.mode}), the experiment {config.search.metric} "
            f"({config.search.mode}); import it with the experiment it was made from"
        )
    if record["HyperParameterTuningJobStatus"] not in ENDED:
        raise ConfigError(
            f"{name} is under way ({record['HyperParameterTuningJobStatus']}); import it when it has ended"
        )
    events = list(_events(config, record, name=name))
    run = create_run(config, parent=out)
    write_atomic(run.path / RECORD, json.dumps(record, indent=1, default=str) + "\n")
    log = EventLog(run.path / "study" / "events.jsonl")
    log.open(study_facts(config.search.model_dump(mode="json", exclude={"storage"}), seed=config.seeds.root))
    log.extend([*events, {"event": "complete", "reason": f"imported from SageMaker tuning job {name}"}])
    run.set_status("finished")
    return run


def _events(config: ExperimentConfig, record: Mapping[str, Any], *, name: str) -> Iterator[dict[str, Any]]:
    assert config.search is not None
    space, budget = with_default(config), config.budget.steps
    for trial, job in enumerate(record["TrainingJobSummaries"]):
        configuration = _configuration(space, job.get("TunedHyperParameters", {}))
        if not space.contains(configuration):
            raise ConfigError(
                f"{name}: {job.get('TrainingJobName')} was trained with {configuration}, which is not in the "
                "experiment's search space; import it with the experiment it was made from"
            )
        at = {"trial": trial, "seed": 0}
        why = f"training job {job.get('TrainingJobName')}"
        yield {"event": "start", **at, "configuration": configuration, "until": budget, "reason": why}
        final, status = job.get("FinalHyperParameterTuningJobObjectiveMetric"), job.get("TrainingJobStatus")
        if status == "Stopped":
            yield {"event": "stop", **at, "reason": "stopped early by SageMaker"}
        elif final is not None and status in ("Completed", None):
            value = config.search.sign * float(final["Value"])
            yield {"event": "report", **at, "resource": budget, "value": value}
            yield {"event": "end", **at, "error": None}
        else:
            reason = job.get("FailureReason") or "no value of the objective was found in its log"
            yield {"event": "end", **at, "error": f"{status}: {reason}"}


def _configuration(space: Space, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the searched values among hyperparameters, without those whose condition does not hold.

    Raises:
        ConfigError: a value is none of its parameter.
    """
    found = {path: value for path, value in from_hyperparameters(hyperparameters).items() if path in space.parameters}
    try:
        typed = {path: space.parameters[path].plain(value) for path, value in found.items()}
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"hyperparameters {found} are none of the experiment's search space") from None
    return {path: typed[path] for path in space.active(typed) if path in typed}

"""SageMaker tuning jobs of an experiment: what is sent, and what they execute."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from policylab.aws.request_view import View
from policylab.errors import ConfigError, UserError
from policylab.experiments.schema import ExperimentConfig, load_file
from policylab.experiments.search import with_default
from policylab.experiments.study_request import request_document
from policylab.files import content_hash
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
from policylab.tuning.space import Space


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
    drawn = drawn_configuration(with_default(config), hyperparameters)
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


def drawn_configuration(space: Space, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
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

"""MLflow's model registry: a registered model for each name.

| of a version | means |
|---|---|
| tag validation_status | pending, approved or rejected |
| alias approved | the version that was approved last; `models:/NAME@approved` |
| tags policylab.* | lineage and headline numbers |
"""

from __future__ import annotations

import datetime
import time
import warnings
from pathlib import Path
from typing import Any

from policylab.deployment.model_registry.versions import Status, Version, facts_of, version_of
from policylab.errors import TrackingError, UserError
from policylab.experiments.tracking.mlflow_policy import DIGEST, log_policy
from policylab.experiments.tracking.settings import MlflowTracking, redacted

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

STATUS, REASON, ALIAS = "validation_status", "validation_reason", "approved"
KNOWN: tuple[Status, ...] = ("pending", "approved", "rejected")


class MlflowVersions:
    """The registered models of one MLflow server or database.

    Args:
        settings: resolved; name the address.
    """

    def __init__(self, settings: MlflowTracking) -> None:
        assert settings.uri is not None
        self._settings = settings
        self._client = MlflowClient(tracking_uri=settings.uri)

    def register(self, bundle: Path, *, name: str) -> Version:
        """Add a bundle as a version of the registered model ``name``, unless tracking has done so already."""
        facts = facts_of(bundle)
        try:
            known = self._known(name, digest=facts["policylab.digest"])
            version = known if known is not None else self._log(bundle, name=name)
            for tag, value in {STATUS: "pending", **facts}.items():
                if known is None or tag not in known.tags:
                    self._client.set_model_version_tag(name, version.version, tag, value)
            return self._version(self._client.get_model_version(name, version.version))
        except MlflowException as error:
            raise self._failure(error) from None

    def _known(self, name: str, *, digest: str) -> Any:
        found = self._client.search_model_versions(f"name = '{name}'")
        return next((one for one in found if one.tags.get(DIGEST) == digest), None)

    def _log(self, bundle: Path, *, name: str) -> Any:
        """Log the bundle in a run of its own, in the experiment of the same name."""
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(experiment_id, run_name=f"register {bundle.name}")
        settings = self._settings.model_copy(update={"registered_model": name})
        uri = log_policy(self._client, bundle, experiment_id=experiment_id, run_id=run.info.run_id, settings=settings)
        self._client.set_terminated(run.info.run_id, end_time=int(time.time() * 1000))
        return self._client.get_model_version(name, uri.rpartition("/")[2])

    def list(self, name: str) -> list[Version]:
        """Return the versions of the registered model ``name``, the newest first."""
        try:
            self._client.get_registered_model(name)
            found = self._client.search_model_versions(f"name = '{name}'")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise UserError(f"there is no registered model '{name}' at {redacted(self._address)}") from None
            raise self._failure(error) from None
        return sorted(map(self._version, found), key=lambda one: -one.version)

    def decide(self, name: str, version: int, *, approve: bool, reason: str | None) -> Version:
        """Set a version's status; the alias goes to one that is approved and leaves one that is rejected."""
        version_of(self.list(name), version, name=name)
        number = str(version)
        try:
            self._client.set_model_version_tag(name, number, STATUS, "approved" if approve else "rejected")
            if reason:
                self._client.set_model_version_tag(name, number, REASON, reason)
            held = self._client.get_registered_model(name).aliases.get(ALIAS)
            if approve:
                self._client.set_registered_model_alias(name, ALIAS, number)
            elif held is not None and str(held) == number:
                self._client.delete_registered_model_alias(name, ALIAS)
            return self._version(self._client.get_model_version(name, number))
        except MlflowException as error:
            raise self._failure(error) from None

    @property
    def _address(self) -> str:
        return str(self._settings.uri)

    def _version(self, found: Any) -> Version:
        status = found.tags.get(STATUS, "pending")
        created = datetime.datetime.fromtimestamp(found.creation_timestamp / 1000, datetime.UTC)
        return Version(
            name=found.name,
            version=int(found.version),
            status=status if status in KNOWN else "pending",
            facts={tag: value for tag, value in found.tags.items() if tag.startswith("policylab.")},
            uri=f"models:/{found.name}/{found.version}",
            reason=found.tags.get(REASON),
            created_utc=created.isoformat(timespec="seconds"),
        )

    def _failure(self, error: MlflowException) -> TrackingError:
        return TrackingError(f"{redacted(self._address)}: MLflow refuses: {redacted(str(error)).splitlines()[0]}")

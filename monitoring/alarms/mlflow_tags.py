"""Tags in MLflow: how the policy of a run, or a registered version, stands according to its monitor."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from policylab.config import Settings
from policylab.errors import RunError
from policylab.monitoring.alarms.alarm import Verdict

MAX_TAG = 5000
"""Longest value of a tag that MLflow takes."""


class MlflowTags(Settings):
    """Sets the tags ``policylab.monitor.NAME`` and ``policylab.monitor.NAME.window``."""

    kind: Literal["mlflow"]
    uri: str | None = Field(default=None, description="tracking URI; default: that of the environment")
    run_id: str | None = Field(default=None, description="of the run that trained the policy")
    model: str | None = Field(default=None, description="name of the registered model")
    version: str | None = Field(default=None, description="of that model")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        registered = self.model is not None and self.version is not None
        if (self.run_id is not None) == registered or (self.model is None) != (self.version is None):
            raise ValueError("tags need either a run_id, or a model and its version")
        return self

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window.

        Raises:
            RunError: MLflow refuses, or cannot be reached.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        said = "; ".join(f"{alarm.name}: {alarm.text}" for alarm in verdict.alarms) or "no alarm"
        name = f"policylab.monitor.{verdict.monitor}"
        try:
            client = MlflowClient(self.uri, self.uri)
            for key, value in ((name, said[:MAX_TAG]), (f"{name}.window", f"{verdict.start_utc}/{verdict.end_utc}")):
                if self.run_id is not None:
                    client.set_tag(self.run_id, key, value)
                else:
                    assert self.model is not None
                    assert self.version is not None
                    client.set_model_version_tag(self.model, self.version, key, value)
        except (MlflowException, OSError) as error:
            raise RunError(f"MLflow did not take the tags: {error}") from error

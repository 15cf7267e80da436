"""A policy bundle as an MLflow model, in MLflow's models-from-code form.

MLflow copies this file beside the bundle and runs it when the model is loaded: no object is pickled,
and the bundle's own checks (hashes, golden outputs) apply.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from policylab.agents.bundle import load_bundle
from policylab.experiments.tracking.observation_rows import observations

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel


class BundlePolicy(PythonModel):
    """Takes the deterministic action for each of a batch of raw observations."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, which checks itself."""
        self._bundle = load_bundle(Path(context.artifacts["bundle"]))

    # MLflow warns at each load about any hint but a DataFrame, which it makes of whatever it is given.
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: PLR0917
        """Return one action per observation, shape (n, ...); see `observation_rows` for the input's forms."""
        batch = observations(self._bundle.observation_space, model_input)
        return self._bundle.policy.act_batch(batch)


set_model(BundlePolicy())

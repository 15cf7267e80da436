"""A policy bundle as an MLflow model, in MLflow's models-from-code form.

MLflow copies this file beside the bundle and runs it when the model is loaded: no object is pickled,
and the bundle's own checks (hashes, golden outputs) apply.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from policylab.agents.bundle import load_bundle
from policylab.experiments.tracking.observation_rows import observations

with warnings.catch_warnings():
    # MLflow warns about type hints it cannot turn into a signature, its own included; this model has a signature.
    warnings.simplefilter("ignore", UserWarning)
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

    class BundlePolicy(PythonModel):
        """Acts greedily on a batch of raw observations."""

        def load_context(self, context: Any) -> None:
            """Load the bundle, which checks itself."""
            self._bundle = load_bundle(Path(context.artifacts["bundle"]))

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: PLR0917 - MLflow's signature
            """Return one action per observation, shape (n, ...); see `observation_rows` for the input's forms."""
            batch = observations(self._bundle.observation_space, model_input)
            return np.array([self._bundle.policy.act(observation) for observation in batch])


set_model(BundlePolicy())

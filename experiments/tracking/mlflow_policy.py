"""A policy bundle in MLflow: a logged model that loads without pickle, and its version in the registry."""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from gymnasium import Space
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from policylab.agents.bundle import load_bundle
from policylab.experiments.tracking.observation_rows import columns, is_tensor
from policylab.experiments.tracking.settings import MlflowTracking

MODEL_NAME = "policy"


def log_policy(client: MlflowClient, bundle: Path, *, experiment_id: str, run_id: str, settings: MlflowTracking) -> str:
    """Log the bundle as a model of the run, register it and move the alias to it.

    Args:
        client: connected to the tracking store.
        bundle: folder of a policy bundle.
        experiment_id: MLflow's id of the experiment.
        run_id: MLflow's id of the run the model belongs to.
        settings: resolved; names the registered model and the alias.

    Returns:
        The version's address, ``models:/NAME/VERSION``.

    Raises:
        BundleError: the bundle is damaged.
        MlflowException: MLflow refused a call.
    """
    digest = load_bundle(bundle).digest
    logged = client.create_logged_model(
        experiment_id, name=MODEL_NAME, source_run_id=run_id, tags={"policylab.digest": digest}, model_type="policy"
    )
    described = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as scratch:
        save_policy(Path(scratch) / MODEL_NAME, bundle, described=described)
        client.log_model_artifacts(logged.model_id, str(Path(scratch) / MODEL_NAME))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    name = settings.registered_model or MODEL_NAME
    _ensure_registered(client, name)
    version = client.create_model_version(
        name, f"models:/{logged.model_id}", run_id, tags={"policylab.digest": digest}, model_id=logged.model_id
    )
    client.set_registered_model_alias(name, settings.alias, version.version)
    return f"models:/{name}/{version.version}"


def save_policy(folder: Path, bundle: Path, *, described: Model | None = None) -> None:
    """Write the bundle as an MLflow pyfunc model into the new folder ``folder``."""
    loaded = load_bundle(bundle)
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(Path(__file__).with_name("pyfunc_policy.py")),
        artifacts={"bundle": str(bundle)},
        signature=signature(loaded.observation_space, loaded.action_space),
        pip_requirements=[f"policylab=={importlib.metadata.version('policylab')}"],
        mlflow_model=described,
    )


def signature(observation_space: Space[Any], action_space: Space[Any]) -> ModelSignature:
    """Return the model signature: a batch of observations in, a batch of actions out.

    Columns carry no names, so that a DataFrame, an array and a list of observations are all accepted.
    """
    if is_tensor(observation_space):
        spec = TensorSpec(np.dtype(str(observation_space.dtype)), (-1, *(observation_space.shape or ())))
        inputs = Schema([spec])
    else:
        types = {int: DataType.long, float: DataType.double}
        inputs = Schema([ColSpec(types[column]) for column in columns(observation_space)])
    dtype = np.dtype(str(action_space.dtype)) if action_space.dtype is not None else np.dtype("O")
    return ModelSignature(inputs, Schema([TensorSpec(dtype, (-1, *(action_space.shape or ())))]))


def _ensure_registered(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException:
        try:
            client.create_registered_model(name)
        except MlflowException as error:  # another run may have just created it
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

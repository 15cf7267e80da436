"""A policy bundle in MLflow: a logged model that loads without pickle, and its version in the registry."""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from policylab.agents.bundle import load_bundle
from policylab.agents.onnx_policy import MODEL
from policylab.experiments.tracking.observation_rows import columns, is_tensor
from policylab.experiments.tracking.settings import MlflowTracking

with warnings.catch_warnings():
    # While it is imported, MLflow warns about its own type hints.
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

MODEL_NAME = "policy"
DIGEST = "policylab.digest"


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
    digest = load_bundle(bundle, memory=True).digest
    name = settings.registered_model or MODEL_NAME
    _ensure_registered(client, name)
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = next((one for one in versions if one.tags.get(DIGEST) == digest), None)
    if version is None:
        model = _logged_model(client, bundle, experiment_id=experiment_id, run_id=run_id, digest=digest)
        version = client.create_model_version(
            name,
            model.artifact_location,  # a models:/ address would be looked up at MLflow's global tracking URI
            run_id,
            tags={DIGEST: digest},
            model_id=model.model_id,
        )
    client.set_registered_model_alias(name, settings.alias, version.version)
    return f"models:/{name}/{version.version}"


def _logged_model(client: MlflowClient, bundle: Path, *, experiment_id: str, run_id: str, digest: str) -> LoggedModel:
    """Return the run's logged model of this bundle: the complete one that is there, or a new one."""
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY and model.tags.get(DIGEST) == digest:
            return model
        if model.status == LoggedModelStatus.PENDING:  # an upload that broke off
            client.delete_logged_model(model.model_id)
    model = client.create_logged_model(
        experiment_id, name=MODEL_NAME, source_run_id=run_id, tags={DIGEST: digest}, model_type="policy"
    )
    described = Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / MODEL_NAME
        save_policy(folder, bundle, described=described)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def save_policy(folder: Path, bundle: Path, *, described: Model | None = None) -> None:
    """Write the bundle as an MLflow pyfunc model into the new folder ``folder``."""
    loaded = load_bundle(bundle, memory=True)
    extras = "[serve]" if MODEL in loaded.manifest.files else ""  # which brings ONNX Runtime
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(Path(__file__).with_name("pyfunc_policy.py")),
        artifacts={"bundle": str(bundle)},
        signature=signature(loaded.observation_space, loaded.action_space),
        pip_requirements=[f"policylab{extras}=={importlib.metadata.version('policylab')}"],
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

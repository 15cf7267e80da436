"""What every training job of a SageMaker tuning job has in common: its TrainingJobDefinition.

It has neither an entrypoint nor arguments, so the image says what is started: an image of policylab's Dockerfile starts
`policylab container`; in AWS's PyTorch images their toolkit starts what the hyperparameter ``sagemaker_program`` names,
which gets no SIGTERM. All jobs would share one checkpoint prefix, so none is given: interrupted, a job starts anew.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTrainingJobDefinition.html
"""

from __future__ import annotations

import hashlib
from typing import Any

from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.training_request import TrainingRun, spec_prefix, training_request

EXPERIMENT = "experiment.yaml"
"""The file in the channel ``run`` in place of a spec.json."""

TOOLKIT = {"sagemaker_program": "bootstrap.py", "sagemaker_submit_directory": "/opt/ml/input/data/code"}
"""Hyperparameters by which the toolkit of AWS's images finds the program."""

_NOT_HERE = ("TrainingJobName", "CheckpointConfig", "Tags")
_NOT_IN_THE_ALGORITHM = ("ContainerEntrypoint", "ContainerArguments", "EnableSageMakerMetricsTimeSeries")


def training_definition(
    settings: SageMakerSettings, *, code_hash: str, experiment: bytes, metric: str
) -> tuple[dict[str, Any], str]:
    """Return the definition, and where the experiment must lie before the tuning job is sent.

    Args:
        settings: of the launcher.
        code_hash: of the source bundle.
        experiment: the content of the experiment's file.
        metric: the objective.
    """
    run = TrainingRun(
        experiment="",
        config_hash="",
        trial=0,
        role="tune",
        index=0,
        stop_at_steps=0,
        code_hash=code_hash,
        spec_hash=hashlib.sha256(experiment).hexdigest(),
        metrics=(metric,),
    )
    definition = {name: value for name, value in training_request(settings, run).items() if name not in _NOT_HERE}
    algorithm = definition["AlgorithmSpecification"]
    definition["AlgorithmSpecification"] = {
        name: value for name, value in algorithm.items() if name not in _NOT_IN_THE_ALGORITHM
    }
    return definition, spec_prefix(settings, run) + EXPERIMENT

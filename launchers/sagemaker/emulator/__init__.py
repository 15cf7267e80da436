"""The training service on this machine: the literal CreateTrainingJob request, executed without Docker.

| name | what it is |
|---|---|
| `EmulatedSageMaker` | the service; interchangeable with a boto3 client |
| `EmulatorSettings` | how jobs are executed |
| `Injection`, `parse_injection` | trouble on purpose |
"""

from policylab.launchers.sagemaker.emulator.injections import Injection, parse_injection
from policylab.launchers.sagemaker.emulator.service import EmulatedSageMaker
from policylab.launchers.sagemaker.emulator.settings import EmulatorSettings

__all__ = ["EmulatedSageMaker", "EmulatorSettings", "Injection", "parse_injection"]

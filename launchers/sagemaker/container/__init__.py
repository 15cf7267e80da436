"""What runs inside a SageMaker training job: `policylab container`, on every host of it."""

"""Versions of policies under a name, and who may serve them: one set of verbs for SageMaker's registry and MLflow's."""

"""policylab.experiments.tracking."""

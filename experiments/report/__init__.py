"""policylab.experiments.report."""

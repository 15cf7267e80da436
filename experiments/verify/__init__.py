"""policylab.experiments.verify."""

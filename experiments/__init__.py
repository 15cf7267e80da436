"""policylab.experiments."""

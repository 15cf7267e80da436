"""policylab.tuning."""

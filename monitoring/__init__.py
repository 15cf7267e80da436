"""policylab.monitoring."""

"""policylab.deployment."""

"""policylab."""

"""policylab.agents."""

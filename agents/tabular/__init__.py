"""policylab.agents.tabular."""

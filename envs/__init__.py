"""policylab.envs."""

"""policylab.launchers."""

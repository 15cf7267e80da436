"""Deep agents of RLlib under the same experiment file, policy bundle and tuning; needs the extra `rllib`."""

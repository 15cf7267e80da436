"""Drift of a reinforcement-learning system told apart: policy, dynamics, rewards, starts, and what follows."""

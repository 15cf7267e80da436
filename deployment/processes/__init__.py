"""Endpoints in several processes, and in the background."""

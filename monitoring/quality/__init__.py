"""Data quality: constraints that a baseline suggests, and the violations of a window of data."""

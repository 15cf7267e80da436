"""Bias between two facets: the metrics of Amazon SageMaker Clarify, their intervals and their drift."""

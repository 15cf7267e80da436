"""Temporal-difference learning on the textbook problems."""

CHECKS = ()

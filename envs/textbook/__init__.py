"""Worlds of Sutton & Barto's textbook, small enough to be solved exactly, and classical rules for some."""

"""Profiles of tables: counts, moments, distributions and categories in bounded memory, and distances between them."""

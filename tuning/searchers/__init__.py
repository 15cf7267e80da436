"""Searchers: each proposes configurations from a study's history; named in `policylab.tuning.searcher.SEARCHERS`."""

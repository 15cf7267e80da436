"""The report of an experiment: one self-contained HTML file and its figures, from plain data."""

from policylab.experiments.report.data import (
    BaselineValue,
    Cost,
    Curves,
    EnvironmentFacts,
    Estimate,
    Exact,
    Grid,
    Lineage,
    ReportData,
    Score,
)
from policylab.experiments.report.episode import Film, episode_gif, gif_bytes
from policylab.experiments.report.grid import grid_of
from policylab.experiments.report.page import write_report

__all__ = [
    "BaselineValue",
    "Cost",
    "Curves",
    "EnvironmentFacts",
    "Estimate",
    "Exact",
    "Film",
    "Grid",
    "Lineage",
    "ReportData",
    "Score",
    "episode_gif",
    "gif_bytes",
    "grid_of",
    "write_report",
]

"""The report of an experiment: one self-contained HTML file and its figures, from plain data."""

from policylab.experiments.report.data import (
    Cost,
    Curves,
    EnvironmentFacts,
    Estimate,
    Exact,
    Grid,
    Lineage,
    ReportData,
)
from policylab.experiments.report.episode import episode_gif, gif_bytes
from policylab.experiments.report.grid import grid_of
from policylab.experiments.report.page import write_report

__all__ = [
    "Cost",
    "Curves",
    "EnvironmentFacts",
    "Estimate",
    "Exact",
    "Grid",
    "Lineage",
    "ReportData",
    "episode_gif",
    "gif_bytes",
    "grid_of",
    "write_report",
]

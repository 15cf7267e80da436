"""Experiment tracking: a run directory projected into MLflow, live or later, by the same idempotent sync."""

from policylab.experiments.tracking.live import LiveTracker, open_tracker, sync_run
from policylab.experiments.tracking.settings import MlflowTracking, NoTracking, TrackingSettings
from policylab.experiments.tracking.state import SyncResult
from policylab.experiments.tracking.tracker import Projection, Tracker

__all__ = [
    "LiveTracker",
    "MlflowTracking",
    "NoTracking",
    "Projection",
    "SyncResult",
    "Tracker",
    "TrackingSettings",
    "open_tracker",
    "sync_run",
]

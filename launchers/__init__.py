"""Where runs execute: on this machine now; clusters and managed services are further adapters."""

from policylab.launchers.launcher import Handle, Launcher, Progress, State
from policylab.launchers.local import LocalLauncher, LocalSettings

__all__ = ["Handle", "Launcher", "LocalLauncher", "LocalSettings", "Progress", "State"]

"""Where runs execute: on this machine, in this process or on a Ray cluster; managed services are further adapters."""

from policylab.launchers.launcher import LAUNCHERS, Handle, Launcher, LauncherSettings, Progress, State, open_launcher
from policylab.launchers.local import LocalLauncher, LocalSettings

__all__ = [
    "LAUNCHERS",
    "Handle",
    "Launcher",
    "LauncherSettings",
    "LocalLauncher",
    "LocalSettings",
    "Progress",
    "State",
    "open_launcher",
]

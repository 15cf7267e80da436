"""The region that a command talks to: ``--region``, else the project file's, else what boto3 finds by itself."""

from __future__ import annotations

import argparse


def region_of(arguments: argparse.Namespace) -> str | None:
    """Return the region of ``--region`` or of the project file; None leaves it to the environment and the profile.

    Raises:
        ConfigError: the project file is malformed.
    """
    from policylab.experiments.project import shared_setting

    return getattr(arguments, "region", None) or shared_setting("sagemaker", "region")

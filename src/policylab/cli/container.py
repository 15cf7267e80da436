"""The command that a container of SageMaker executes."""

from __future__ import annotations

import argparse


def container(arguments: argparse.Namespace) -> int:
    """Do this host's part of a SageMaker training job, or serve the policy of an endpoint."""
    if arguments.part == "serve":
        from policylab.cli.endpoint import required_modules

        required_modules()
        from policylab.deployment.sagemaker.inside import serve_container

        serve_container()
        return 0
    from policylab.launchers.sagemaker.container.entry import run_container

    return int(run_container())

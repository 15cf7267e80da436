"""The command line. Each command lives in a module of this package and is imported when it is called."""

from policylab.cli.main import main

__all__ = ["main"]

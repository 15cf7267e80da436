"""policylab: one experiment file from training and tuning to a watched reinforcement-learning endpoint.

Importing it registers the environments ``policylab/...`` with Gymnasium and loads no other library.
"""

from policylab import _gymnasium_hook

__all__ = ["__version__"]

__version__ = "0.1.0"

_gymnasium_hook.install()

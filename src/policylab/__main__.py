"""``python -m policylab`` is the command line."""

import sys

from policylab.cli import main

sys.exit(main())

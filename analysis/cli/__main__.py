"""`python -m analysis.cli` is the command `ncsam`."""

import sys

from analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())

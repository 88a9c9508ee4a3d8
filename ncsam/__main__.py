"""`python -m ncsam` is the command `ncsam`."""

import sys

from ncsam_command import main

if __name__ == "__main__":
    sys.exit(main())

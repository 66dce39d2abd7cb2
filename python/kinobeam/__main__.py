"""`python -m kinobeam` is the command `kinobeam`."""

import sys

from kinobeam.cli import main

if __name__ == "__main__":
    sys.exit(main())

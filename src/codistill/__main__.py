"""`python -m codistill` is the command `codistill`."""

import sys

from codistill.command.main import main

if __name__ == "__main__":
    sys.exit(main())

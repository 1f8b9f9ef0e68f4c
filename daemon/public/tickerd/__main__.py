"""`python -m tickerd`: the command `tickerd`."""

from __future__ import annotations

import sys

from daemon.__main__ import main as main

if __name__ == "__main__":
    sys.exit(main())

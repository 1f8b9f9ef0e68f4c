"""How this very program is started again, as another process.

In the checkout the daemon is the package `daemon`; as installed it is `tickerd.daemon`, since `daemon` may be somebody
else's there. So nobody says that name but this file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DAEMON: Final = __name__.removesuffix(".host.program")
"""What the package of the daemon is called here: for `python -m`."""

HOME: Final = Path(__file__).resolve().parents[2 + DAEMON.count(".")]
"""The folder from which `python -m` finds it, whatever else is installed."""


def command(*arguments: str, module: Sequence[str] = (DAEMON,)) -> list[str]:
    """The command line that runs it, in `HOME`, by the same interpreter.

    `module`: another one of its modules, and what that one wants before the arguments.
    """
    return [sys.executable, "-m", *module, *arguments]

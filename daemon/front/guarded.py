"""That tokens were in force is remembered over a restart, in an empty file beside the tape's.

Who revokes the last token wants nobody to have anything; a daemon that has forgotten that there ever was one would let
everybody in. So the mark is set as long as a token is needed, and only the operator's `[server] open = true` removes
it. Without `[tape] path` there is nowhere to keep it: then an empty `[tokens]` table says the same.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

_SUFFIX: Final = "-guarded"

_log: Final = logging.getLogger(__name__)


class Mark:
    """The file, or nothing where there is no place for one. Its methods wait for the disk: call them in a thread."""

    def __init__(self, tape: str) -> None:
        """`tape` is `[tape] path`."""
        self._path = Path(tape + _SUFFIX) if tape else None

    def is_set(self) -> bool:
        """Whether a token was needed when the daemon ran last. Where that cannot be found out, one was."""
        if self._path is None:
            return False
        try:
            self._path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            _log.warning("%s cannot be looked at, so that a token is needed: %s", self._path, error.strerror)
        return True

    def keep(self, *, guarded: bool) -> None:
        """Set it or remove it. Where the disk takes nothing that is logged, and changes nothing for this run."""
        if self._path is None:
            return
        try:
            if guarded:
                self._path.touch(mode=0o600)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be written, so that a restart does not know of it: %s", self._path, error.strerror)

"""The pins of an installation for service: of requirements.lock, what the daemon needs, and what builds its wheel.

`python -m tests.service_lock` (the end of `make lock`) writes systemd/runtime.lock and systemd/build.lock. Each pin and
hash is that of requirements.lock, so what was audited and tested there is what a service runs with.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from typing import Any, Final

from packaging.utils import canonicalize_name

from tests.audit import ROOT, Wants, closure, installed

RUNTIME: Final = ROOT / "systemd" / "runtime.lock"
BUILD: Final = ROOT / "systemd" / "build.lock"

_HEAD: Final = "# Of requirements.lock, what {}. Made by `make lock`; change nothing here.\n"
_PIN: Final = re.compile(r"^([A-Za-z0-9][\w.-]*)==.*\n(?:    --hash=.*\n)*", re.MULTILINE)


def locks(lock: str, pyproject: str, wants: Wants = installed) -> tuple[str, str]:
    """What `RUNTIME` and `BUILD` have to say.

    Raises:
        LookupError: something that is needed is not installed, or not pinned.
    """
    tables: dict[str, Any] = tomllib.loads(pyproject)
    runtime = _part(lock, tables["project"]["dependencies"], wants)
    build = _part(lock, tables["build-system"]["requires"], wants)
    return _HEAD.format("the daemon needs to run") + runtime, _HEAD.format("builds its wheel") + build


def _part(lock: str, roots: Iterable[str], wants: Wants) -> str:
    """The pins of what these requirements want, by whatever way, word for word."""
    wanted, missing = closure(roots, wants, hooks={})
    pins = {canonicalize_name(found[1]): found[0] for found in _PIN.finditer(lock)}
    if lacking := sorted(missing | (wanted - pins.keys())):
        raise LookupError(f"not installed, or not in requirements.lock: {', '.join(lacking)}")
    return "".join(text for name, text in pins.items() if name in wanted)


def main() -> int:
    """Write both files."""
    made = locks((ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text())
    for path, text in zip((RUNTIME, BUILD), made, strict=True):
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

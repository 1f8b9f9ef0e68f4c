"""Puts the packages below `tickerd` in the wheel, where they collide with nobody's.

The checkout's packages are `daemon`, `connectors` and `protocol`; `pip install python-daemon` has a `daemon`, too. In
the wheel each file lies below `tickerd/`, and what it imports of ours begins with `tickerd.`: `from daemon.client
import connect` becomes `from tickerd.daemon.client import connect`. Only that word is added, where Python's own parser
finds the import, so every line keeps its number. What users import (`daemon/public/tickerd/`) becomes the package
itself.

An editable install takes no part in this: it is the checkout.
"""

from __future__ import annotations

import ast
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAMES: Final = frozenset({"daemon", "connectors", "protocol"})
"""The packages of the checkout."""

PACKAGE: Final = "tickerd"
"""The package that has them in the wheel."""

PUBLIC: Final = "daemon/public/tickerd"
"""The folder with the package's own files."""

PUBLIC_FILES: Final = ("__init__.py", "__main__.py", "asyncio.py", "py.typed")


def rewritten(source: bytes, path: str) -> bytes:
    """The source with `tickerd.` before what it imports of ours.

    Raises:
        ValueError: it imports in a form that would bind another name in the wheel; the text says where.
        SyntaxError: it is not Python.
    """
    lines = source.splitlines(keepends=True)
    places: list[tuple[int, int]] = []
    for node in ast.walk(ast.parse(source, path)):
        match node:
            case ast.ImportFrom(module=str(module), level=0) if _is_ours(module):
                # The name follows the word `from`, and a line may be continued between them.
                places.append(_found(lines, node.lineno - 1, node.col_offset + len("from"), module))
            case ast.Import(names=names):
                for alias in names:
                    if _is_ours(alias.name) and alias.asname is None:
                        raise ValueError(
                            f"{path}:{node.lineno}: `import {alias.name}` needs `as`, or `from ... import`"
                        )
                    if _is_ours(alias.name):
                        places.append((alias.lineno - 1, alias.col_offset))
    for row, column in sorted(places, reverse=True):
        lines[row] = lines[row][:column] + f"{PACKAGE}.".encode() + lines[row][column:]
    return b"".join(lines)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in NAMES


def _found(lines: list[bytes], row: int, column: int, module: str) -> tuple[int, int]:
    while (at := lines[row].find(module.partition(".")[0].encode(), column)) < 0:
        row, column = row + 1, 0
    return row, at


class Below(BuildHookInterface[Any]):
    """Called by hatchling (`[tool.hatch.build.targets.wheel.hooks.custom]`)."""

    _folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write what changes into a folder beside, from which it is packed instead."""
        if version == "editable":
            return
        self._folder = Path(tempfile.mkdtemp(prefix="tickerd-wheel-"))
        public = Path(self.root, PUBLIC)
        packed = {
            Path(file.path): file.distribution_path
            for file in self.build_config.builder.recurse_selected_project_files()
        }
        packed |= {public / name: f"{PACKAGE}/{name}" for name in PUBLIC_FILES}
        for number, (path, name) in enumerate(sorted(packed.items())):
            source = path.read_bytes()
            changed = rewritten(source, str(path.relative_to(self.root))) if path.suffix == ".py" else source
            if changed != source or path.is_relative_to(public):
                copy = self._folder / str(number)
                copy.write_bytes(changed)
                build_data["force_include"][str(copy)] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove that folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder)

"""Assembles the package of the JavaScript client: `python .packaging/npm.py FOLDER`, then `npm pack FOLDER`.

Nothing of it is stored twice: the client is the file that the daemon serves, its types are made of the messages.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from daemon.routes.page import FOLDER, types_of_client  # noqa: E402 # of this checkout


def assemble(folder: Path) -> None:
    """Write the package into this folder, which is made. Raises: OSError."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(FOLDER / "client.js", folder / "client.js")
    (folder / "client.d.ts").write_bytes(types_of_client((FOLDER / "client.d.ts").read_bytes()))
    shutil.copyfile(ROOT / ".packaging" / "npm.md", folder / "README.md")
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    described = {
        "name": "tickerd-client",
        "version": project["version"],
        "description": "Market data from tickerd: reconnects, resumes, and tells what is missing",
        "license": project["license"],
        "type": "module",
        "exports": {".": {"types": "./client.d.ts", "default": "./client.js"}},
        "types": "./client.d.ts",
        "files": ["client.js", "client.d.ts"],
        "sideEffects": False,
        "engines": {"node": ">=18"},
    }
    (folder / "package.json").write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .packaging/npm.py FOLDER")
    assemble(Path(sys.argv[1]))

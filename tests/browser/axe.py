"""axe-core, which looks for what keeps people out of a page: a tool of the tests, fetched by npm, and never shipped."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

VERSION: Final = "4.14.1"
SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of `axe.min.js`, so that nothing else is ever run."""

_NPM_S: Final = 120


def axe() -> str:
    """Its JavaScript, from the cache folder or by npm.

    Without npm, or where it reaches no registry, the test is skipped; `TICKERD_REQUIRE_BROWSER=1` makes that a failure.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickerd-tests" / f"axe-core-{VERSION}"
    file = cache / "axe.min.js"
    if not file.exists():
        trouble = _fetch(file)
        if trouble and os.environ.get("TICKERD_REQUIRE_BROWSER"):
            pytest.fail(trouble)
        if trouble:
            pytest.skip(trouble)
    text = file.read_bytes()
    assert hashlib.sha256(text).hexdigest() == SHA256, f"{file} is not axe-core {VERSION}: remove it"
    return text.decode()


def _fetch(file: Path) -> str:
    """Have npm put the file there. Returns why it could not; "" if it could."""
    npm = shutil.which("npm")
    if npm is None:
        return "no npm here; Debian and Ubuntu have it: apt-get install npm"
    with tempfile.TemporaryDirectory() as folder:
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", folder]
        command = [npm, "install", *options, f"axe-core@{VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_S, cwd=folder, check=False)
        except subprocess.TimeoutExpired:
            return f"npm did not fetch axe-core in {_NPM_S} s"
        if done.returncode:
            return f"npm could not fetch axe-core: {done.stderr.strip()[-300:]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Another test run may do the same: each puts a whole file there.
        part = file.with_suffix(f".{os.getpid()}")
        shutil.copyfile(Path(folder) / "node_modules" / "axe-core" / "axe.min.js", part)
        part.replace(file)
    return ""

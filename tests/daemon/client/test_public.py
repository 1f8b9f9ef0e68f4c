"""What users import: `tickerd`, as the documents show it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tickerd
import tickerd.asyncio
from daemon import client

ROOT = Path(__file__).resolve().parents[3]
SHOWN = [
    code
    for document in ("README.md", "protocol/CLIENTS.md")
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
]


def test_it_is_the_client_on_trio_and_its_names() -> None:
    assert tickerd.connect is client.connect
    assert set(client.__all__) <= set(dir(tickerd))
    assert all(hasattr(tickerd, name) for name in client.__all__)
    with pytest.raises(AttributeError, match="module 'tickerd' has no attribute 'conect'"):
        tickerd.conect  # type: ignore[attr-defined] # noqa: B018


def test_importing_it_does_not_load_trio() -> None:
    program = "import sys; sys.path.insert(0, 'daemon/public'); import tickerd.asyncio; print('trio' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize("code", SHOWN)
def test_what_the_documents_import_is_there(code: str) -> None:
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imported
    for node in imported:
        assert node.module in ("tickerd", "tickerd.asyncio")
        module = {"tickerd": tickerd, "tickerd.asyncio": tickerd.asyncio}[str(node.module)]
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []

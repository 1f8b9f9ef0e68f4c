"""How the wheel's imports come to begin with `tickerd.`: by the parser's places, and nothing else of a file changes."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel", ROOT / ".packaging" / "wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rewritten = hook().rewritten


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from daemon.app import run", "from tickerd.daemon.app import run"),
        ("from daemon import app", "from tickerd.daemon import app"),
        ("import protocol.codes as codes", "import tickerd.protocol.codes as codes"),
        ("import os, connectors.base as base, sys", "import os, tickerd.connectors.base as base, sys"),
        ("from  \\\n  daemon.app import run", "from  \\\n  tickerd.daemon.app import run"),
        ("x = 'é'; from daemon import app", "x = 'é'; from tickerd.daemon import app"),
        ("if 1:\n    from connectors import base\r\n", "if 1:\n    from tickerd.connectors import base\r\n"),
        ("from daemonic import x", "from daemonic import x"),
        ("from . import daemon", "from . import daemon"),
        ('"""from daemon import app"""', '"""from daemon import app"""'),
        ("daemon = 1  # from daemon import app", "daemon = 1  # from daemon import app"),
    ],
)
def test_only_what_is_imported_of_ours_is_renamed(source: str, expected: str) -> None:
    assert rewritten(source.encode(), "x.py").decode() == expected


def test_an_import_that_would_bind_another_name_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"a/b.py:2: `import daemon.app` needs `as`"):
        rewritten(b"import os\nimport daemon.app\n", "a/b.py")


def test_every_source_keeps_its_lines_and_all_else() -> None:
    for package in ("daemon", "connectors", "protocol"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_bytes()
            changed = rewritten(source, str(path))
            lines, others = source.splitlines(), changed.splitlines()
            assert len(lines) == len(others)
            differ = [(old, new) for old, new in zip(lines, others, strict=True) if old != new]
            assert [(old, new) for old, new in differ if new.replace(b"tickerd.", b"", 1) != old] == []
            assert all(re.match(rb"\s*(from|import) tickerd\.", new) for _, new in differ)
            ast.parse(changed)


def test_no_text_names_a_module_that_is_called_otherwise_in_the_wheel() -> None:
    """The names of our own modules come from `daemon/host/program.py`, and from `__name__`."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for package in ("daemon", "connectors", "protocol")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_module(node.value)
    ]
    assert found == []


def is_module(text: str) -> bool:
    """Whether the text is the dotted name of one of our modules."""
    if not all(part.isidentifier() for part in text.split(".")) or "." not in text:
        return False
    path = ROOT.joinpath(*text.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_a_text_that_is_a_module_is_found() -> None:
    assert [text for text in ("daemon.app", "daemon.host", "daemon.gone", "a b.c", "daemon") if is_module(text)] == [
        "daemon.app",
        "daemon.host",
    ]

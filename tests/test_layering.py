"""Who may import whom, what may come from outside, and what may lie where.

`protocol` <- `connectors` <- `daemon` ("<-": is imported by). The rules are read off the source by
`ast`, so an import inside a function counts like any other, and nothing is run. Each rule is shown
on made-up sources to be able to fail.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import cast

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = ("protocol", "connectors", "daemon")
"""Lowest first: a layer imports itself and what stands before it."""

PROTOCOL_THIRD_PARTY = {"msgspec"}
"""All that the lowest layer may import beside the standard library."""

FENCED = {
    "trio_websocket": (
        "daemon/sessions/*.py",
        "daemon/client*.py",
        "daemon/*rehears*.py",
        "connectors/push/connection.py",
        "connectors/simulator/*.py",
    ),
    "httpx": ("connectors/poll/poller.py",),
}
"""Libraries that only these files may import, so that a change of theirs stays in one place."""

REGISTRY = "connectors/venues/registry.py"
"""The only file that knows the venues."""

VENUE = re.compile(r"connectors\.venues\.(?!registry\b)(\w+)")
"""The modules of one venue each. Those of one folder know each other."""

SIMULATOR = re.compile(r"connectors\.simulator\.simulator\b")
SIMULATES = ("daemon/commands/demo.py", "daemon/__main__.py")
"""The only files of the daemon that know the simulator."""

MOST_LINES = 400
"""A file that is longer has two jobs."""

TOP_LEVEL = {
    *("daemon", "connectors", "protocol", "tests", "systemd", "pyproject.toml", "README.md"),
    *("Makefile", "LICENSE", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"),
    "requirements.lock",
}
"""Dot-files may join them."""

Sources = Mapping[str, str]
"""File contents by path below the root, with forward slashes."""


@dataclass(frozen=True)
class Import:
    """One imported module at one place."""

    path: str
    line: int
    target: str
    for_types_only: bool

    @property
    def top(self) -> str:
        """The first part of the module's name."""
        return self.target.partition(".")[0]

    def breach(self, what: str) -> str:
        """One line that says where it is and what is wrong."""
        return f"{self.path}:{self.line}: {what}"


def module_name(path: str) -> str:
    """The name under which a file is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_type_checking(test: ast.expr) -> bool:
    """Whether the condition is `TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def statements(node: ast.AST, *, for_types: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import statement below the node, and whether only a type checker sees it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, for_types
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            yield from statements(ast.Module(child.body, []), for_types=True)
            yield from statements(ast.Module(child.orelse, []), for_types=for_types)
        else:
            yield from statements(child, for_types=for_types)


def imports(path: str, source: str, modules: set[str]) -> Iterator[Import]:
    """What a file imports; `from package import x` is the module `package.x` where that is one."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package.pop()
    for statement, for_types in statements(ast.parse(source, path)):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield Import(path, statement.lineno, alias.name, for_types)
            continue
        from_ = cast("ast.ImportFrom", statement)
        above = package[: len(package) - from_.level + 1] if from_.level else []
        base = ".".join([*above, *filter(None, [from_.module])])
        for alias in from_.names:
            inner = f"{base}.{alias.name}"
            yield Import(path, from_.lineno, inner if inner in modules else base, for_types)


def circles(found: list[Import], modules: set[str]) -> Iterator[str]:
    """The first circle among our own modules, at the import that closes it."""
    edges = {(module_name(i.path), i.target): i for i in found if i.target in modules and not i.for_types_only}
    graph = TopologicalSorter[str]()
    for importer, imported in edges:
        graph.add(importer, imported)
    try:
        graph.prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        # graphlib lists the ring so that each is imported by its successor.
        yield edges[ring[1], ring[0]].breach(f"import circle: {' <- '.join(ring)}")


def breaches(sources: Sources, declared: set[str]) -> list[str]:
    """Every breach of the layering, as `file:line: what`.

    `declared` are the names of the distributions that may be imported.
    """
    modules = {module_name(path) for path in sources}
    found = [i for path, source in sources.items() for i in imports(path, source, modules)]
    said: list[str] = []
    for i in found:
        layer = i.path.partition("/")[0]
        if i.top in LAYERS:
            if LAYERS.index(i.top) > LAYERS.index(layer):
                said.append(i.breach(f"{layer} imports {i.target}"))
            venue = VENUE.match(i.target)
            if venue and i.path != REGISTRY and not i.path.startswith(f"connectors/venues/{venue[1]}/"):
                said.append(i.breach(f"only {REGISTRY} imports {i.target}"))
            if layer == "daemon" and SIMULATOR.match(i.target) and i.path not in SIMULATES:
                said.append(i.breach(f"only {' and '.join(SIMULATES)} import {i.target}"))
            continue
        if i.top in sys.stdlib_module_names:
            continue
        if layer == "protocol" and i.top not in PROTOCOL_THIRD_PARTY:
            said.append(i.breach(f"protocol imports {i.target}"))
        if i.top in FENCED and not any(fnmatch(i.path, allowed) for allowed in FENCED[i.top]):
            said.append(i.breach(f"only {', '.join(FENCED[i.top])} import {i.top}"))
        if i.top.replace("_", "-") not in declared:
            said.append(i.breach(f"{i.top} is not declared in pyproject.toml"))
    return said + list(circles(found, modules))


def too_long(sources: Sources) -> list[str]:
    """The files over the limit."""
    return [
        f"{path}:{lines}: over {MOST_LINES} lines"
        for path, source in sources.items()
        if (lines := source.count("\n")) > MOST_LINES
    ]


def strangers(paths: list[str]) -> list[str]:
    """What lies at the top level and does not belong there."""
    tops = {path.partition("/")[0] for path in paths}
    return sorted(top for top in tops if top not in TOP_LEVEL and not top.startswith("."))


def project() -> dict[str, object]:
    """The [project] table."""
    return cast("dict[str, object]", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def names(requirements: list[str]) -> set[str]:
    """The distributions' names, without what stands behind them."""
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def read_sources(*folders: str) -> dict[str, str]:
    """All Python files below the folders."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def test_the_layers_hold() -> None:
    sources = read_sources(*LAYERS)
    assert {path.partition("/")[0] for path in sources} == set(LAYERS)
    declared = names(cast("list[str]", project()["dependencies"]))
    assert breaches(sources, declared) == []


def test_the_tests_import_nothing_undeclared() -> None:
    extras = cast("dict[str, list[str]]", project()["optional-dependencies"])
    declared = names([*cast("list[str]", project()["dependencies"]), *extras["dev"]])
    sources = read_sources("tests")
    undeclared = [
        i.breach(f"{i.top} is not declared in pyproject.toml")
        for path, source in sources.items()
        for i in imports(path, source, set())
        if i.top not in {*LAYERS, "tests", *sys.stdlib_module_names} and i.top.replace("_", "-") not in declared
    ]
    assert undeclared == []


def test_no_file_is_too_long() -> None:
    assert too_long(read_sources(*LAYERS)) == []


def test_the_lock_pins_every_direct_dependency_and_names_no_source() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    extras = cast("dict[str, list[str]]", project()["optional-dependencies"])
    direct = [*cast("list[str]", project()["dependencies"]), *extras["dev"]]
    assert [requirement for requirement in direct if ">=" not in requirement] == []
    assert names([*direct, "hatchling"]) - pinned == set()
    other = [
        line
        for line in lock.splitlines()
        if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line)
    ]
    assert other == []


def test_the_top_level_holds_only_what_belongs_there() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = listing.stdout.splitlines()
    assert "pyproject.toml" in paths
    assert strangers(paths) == []


# The checker itself: each rule catches its breach, at its line.

DECLARED = {"trio", "trio-websocket", "httpx", "msgspec", "h11"}


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("protocol/a.py", "import trio", "protocol/a.py:1: protocol imports trio"),
        ("protocol/a.py", "\nimport daemon.hub", "protocol/a.py:2: protocol imports daemon.hub"),
        (
            "protocol/a.py",
            "def f():\n    from connectors import base\n",
            "protocol/a.py:2: protocol imports connectors",
        ),
        (
            "connectors/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from daemon.tape import Tape\n",
            "connectors/base.py:3: connectors imports daemon.tape",
        ),
        (
            "connectors/base.py",
            "from ..daemon import tape",
            "connectors/base.py:1: connectors imports daemon",
        ),
        (
            "connectors/venues/okx/tickers.py",
            "try:\n    import httpx as client\nexcept ImportError:\n    pass\n",
            "connectors/venues/okx/tickers.py:2: only connectors/poll/poller.py import httpx",
        ),
        (
            "daemon/hub.py",
            "from trio_websocket import ConnectionClosed",
            "daemon/hub.py:1: only daemon/sessions/*.py, daemon/client*.py, daemon/*rehears*.py, "
            "connectors/push/connection.py, connectors/simulator/*.py import trio_websocket",
        ),
        (
            "daemon/hub.py",
            "from connectors.venues.binance.polls import Binance",
            f"daemon/hub.py:1: only {REGISTRY} imports connectors.venues.binance.polls",
        ),
        (
            "connectors/venues/okx/tickers.py",
            "from connectors.venues.binance.polls import number",
            f"connectors/venues/okx/tickers.py:1: only {REGISTRY} imports connectors.venues.binance.polls",
        ),
        (
            "connectors/simulator/venues/okx.py",
            "from connectors.venues.okx.tickers import RULES",
            f"connectors/simulator/venues/okx.py:1: only {REGISTRY} imports connectors.venues.okx.tickers",
        ),
        (
            "daemon/hub.py",
            "from connectors.simulator.simulator import Simulator",
            f"daemon/hub.py:1: only {' and '.join(SIMULATES)} import connectors.simulator.simulator",
        ),
        (
            "daemon/host/logs.py",
            "import structlog.stdlib",
            "daemon/host/logs.py:1: structlog is not declared in pyproject.toml",
        ),
    ],
)
def test_a_breach_is_named_with_its_line(path: str, source: str, expected: str) -> None:
    assert breaches({path: source}, DECLARED) == [expected]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("protocol/a.py", "import json, msgspec.json\nfrom protocol import codes\n"),
        ("connectors/poll/poller.py", "import httpx, trio\nfrom protocol.messages import Price\n"),
        ("connectors/simulator/venues/okx.py", "from trio_websocket import serve_websocket\n"),
        ("daemon/app.py", "from connectors.venues.registry import VENUES\nimport daemon.hub\n"),
        (REGISTRY, "from connectors.venues.binance.polls import Binance\n"),
        ("connectors/venues/binance/polls.py", "from connectors.venues.binance import errors\n"),
        ("daemon/hub.py", "from connectors.base import Event\nfrom . import tape\n"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert breaches({path: source}, DECLARED) == []


def test_a_venue_is_recognised_behind_a_from_import_of_its_package() -> None:
    sources = {"daemon/hub.py": "from connectors.venues.okx import tickers", "connectors/venues/okx/tickers.py": ""}
    only = f"daemon/hub.py:1: only {REGISTRY} imports connectors.venues.okx.tickers"
    assert breaches(sources, DECLARED) == [only]


def test_a_circle_is_found_also_when_one_import_is_inside_a_function() -> None:
    sources = {
        "daemon/a.py": "from daemon import b",
        "daemon/b.py": "import daemon.c",
        "daemon/c.py": "def late():\n    from daemon.a import x\n",
    }
    [said] = breaches(sources, DECLARED)
    assert re.match(r"daemon/[abc]\.py:[12]: import circle: ", said)
    assert all(module in said for module in ("daemon.a", "daemon.b", "daemon.c"))


def test_an_import_for_types_only_closes_no_circle() -> None:
    types_only = "import typing\nif typing.TYPE_CHECKING:\n    import daemon.a\n"
    sources = {"daemon/a.py": "import daemon.b", "daemon/b.py": types_only}
    assert breaches(sources, DECLARED) == []


def test_the_branch_beside_type_checking_counts_as_run() -> None:
    ran = "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import daemon.a\n"
    [said] = breaches({"daemon/a.py": "import daemon.b", "daemon/b.py": ran}, DECLARED)
    assert "import circle" in said


def test_a_file_at_the_limit_passes_and_one_line_more_does_not() -> None:
    sources = {"daemon/fits.py": "\n" * MOST_LINES, "daemon/long.py": "\n" * (MOST_LINES + 1)}
    assert too_long(sources) == ["daemon/long.py:401: over 400 lines"]


def test_a_stranger_at_the_top_level_is_named() -> None:
    assert strangers(["README.md", ".ci/run", "utils/a.py", "notes.txt"]) == ["notes.txt", "utils"]

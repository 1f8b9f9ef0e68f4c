"""Who may import whom, what may come from outside, and what may lie where.

The folders stand on floors: a folder imports only from floors below its own. The imports are read off the source by
`ast`, and nothing is run: one inside a function counts like any other, and so does one that only a type checker sees.
Each rule is shown on made-up sources to be able to fail.
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

PACKAGES = ("protocol", "connectors", "daemon")

PUBLIC = "tickerd"
"""What users import: `daemon/public/`."""

FLOORS = {
    "protocol": 1,
    "daemon/host": 1,
    "connectors": 2,
    "connectors/poll": 3,
    "connectors/books": 3,
    "connectors/push": 3,
    "connectors/simulator": 3,
    "connectors/venues": 4,
    "connectors/replay": 5,
    "daemon/tape": 5,
    "daemon/ingest": 5,
    "daemon/health": 5,
    "daemon/front": 5,
    "daemon/client": 5,
    "daemon/publish": 6,
    "daemon/routes": 6,
    "daemon/fanout": 7,
    "daemon/replay": 7,
    "daemon/config": 7,
    "daemon/sessions": 8,
    "daemon/commands": 8,
    "daemon/composition": 9,
    "daemon/workers": 10,
    "daemon/clustered.py": 11,
    "daemon/app.py": 12,
    "daemon/__main__.py": 13,
    "daemon/public": 14,
}
"""On which floor a folder stands, with all that is in it; a file that is named by itself has its own."""

MOST_LOOSE = 5
"""So many files may lie in `daemon` or `connectors` itself, beside the folders."""

PROTOCOL_THIRD_PARTY = {"msgspec"}
"""All that the lowest layer may import beside the standard library."""

FENCED = {
    "trio_websocket": (
        "daemon/sessions/*.py",
        "daemon/client/trio/*.py",
        "daemon/*rehears*.py",
        "connectors/push/connection.py",
        "connectors/simulator/*.py",
    ),
    "websockets": ("daemon/client/asyncio/link.py",),
    "pyarrow": ("daemon/commands/export/parquet.py",),
    "httpx": ("connectors/poll/asking.py", "connectors/poll/host.py", "connectors/poll/poller.py"),
}
"""Libraries that only these files may import, so that a change of theirs stays in one place."""

LATER = {"compression"}
"""Modules of the standard library that the oldest Python does not have yet: imported where they are there."""

REGISTRY = "connectors/venues/registry.py"
"""The only file that knows the venues."""

VENUE = re.compile(r"connectors\.venues\.(?!registry\b)(\w+)")
"""The modules of one venue each. Those of one folder know each other."""

SIMULATOR = "connectors.simulator"
SIMULATES = ("connectors/simulator/", "daemon/commands/", "daemon/__main__.py")
"""Who alone knows the simulator: itself, and what is started instead of the daemon or beside it."""

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


def room_of(name: str) -> str:
    """The longest name in `FLOORS` that a path, or a module with slashes for dots, begins with; "" where none does."""
    rooms = [room for room in FLOORS if f"{name}/".startswith(f"{room}/") or f"{name}.py" == room]
    return max(rooms, key=len, default="")


def floor_breach(found: Import) -> str:
    """What is wrong with an import of our own, by the floors; "" where nothing is."""
    importer, imported = room_of(found.path), room_of(found.target.replace(".", "/"))
    if importer == imported or not imported:
        return ""
    if not importer:
        return f"{found.path} stands on no floor"
    if FLOORS[imported] < FLOORS[importer]:
        return ""
    return f"{importer} (floor {FLOORS[importer]}) imports {found.target} (floor {FLOORS[imported]})"


def is_declared(target: str, declared: set[str]) -> bool:
    """Whether a module is of a declared distribution: by its first name, or by all of them in a namespace."""
    return bool({target.partition(".")[0].replace("_", "-"), re.sub(r"[_.]", "-", target)} & declared)


def folder_of(module: str, paths: set[str]) -> str:
    """The folder that a module lies in, as a name with dots."""
    return module if f"{module.replace('.', '/')}/__init__.py" in paths else module.rpartition(".")[0]


def ring(edges: Mapping[tuple[str, str], Import], what: str) -> Iterator[str]:
    """The first circle among these, at the import that closes it."""
    graph = TopologicalSorter[str]()
    for importer, imported in edges:
        graph.add(importer, imported)
    try:
        graph.prepare()
    except CycleError as error:
        names: list[str] = error.args[1]
        # graphlib lists the ring so that each is imported by its successor.
        yield edges[names[1], names[0]].breach(f"{what}: {' <- '.join(names)}")


def circles(found: list[Import], modules: set[str], paths: set[str]) -> Iterator[str]:
    """The first circle of files, and the first one of folders."""
    ours = [i for i in found if i.target in modules]
    yield from ring({(module_name(i.path), i.target): i for i in ours}, "import circle")
    of_folders = {(folder_of(module_name(i.path), paths), folder_of(i.target, paths)): i for i in ours}
    between = {(one, other): i for (one, other), i in of_folders.items() if one != other}
    yield from ring(between, "circle of folders")


def loose(sources: Sources) -> list[str]:
    """The packages in which too many files lie beside the folders."""
    return [
        f"{package}: {len(files)} files lie loose, at most {MOST_LOOSE} may: {', '.join(files)}"
        for package in ("daemon", "connectors")
        if len(files := sorted(path for path in sources if re.fullmatch(rf"{package}/\w+\.py", path))) > MOST_LOOSE
    ]


def breaches(sources: Sources, declared: set[str]) -> list[str]:
    """Every breach of the layering, as `file:line: what`.

    `declared` are the names of the distributions that may be imported.
    """
    modules = {module_name(path) for path in sources}
    found = [i for path, source in sources.items() for i in imports(path, source, modules)]
    said: list[str] = []
    for i in found:
        layer = i.path.partition("/")[0]
        if i.top in PACKAGES:
            if breach := floor_breach(i):
                said.append(i.breach(breach))
            venue = VENUE.match(i.target)
            if venue and i.path != REGISTRY and not i.path.startswith(f"connectors/venues/{venue[1]}/"):
                said.append(i.breach(f"only {REGISTRY} imports {i.target}"))
            if f"{i.target}.".startswith(f"{SIMULATOR}.") and not i.path.startswith(SIMULATES):
                said.append(i.breach(f"only {' and '.join(SIMULATES)} import {i.target}"))
            continue
        if i.top in sys.stdlib_module_names or i.top in LATER:
            continue
        if layer == "protocol" and i.top not in PROTOCOL_THIRD_PARTY:
            said.append(i.breach(f"protocol imports {i.target}"))
        if i.top in FENCED and not any(fnmatch(i.path, allowed) for allowed in FENCED[i.top]):
            said.append(i.breach(f"only {', '.join(FENCED[i.top])} import {i.top}"))
        if not is_declared(i.target, declared):
            said.append(i.breach(f"{i.top} is not declared in pyproject.toml"))
    return said + list(circles(found, modules, set(sources)))


def strangers(paths: list[str]) -> list[str]:
    """What lies at the top level and does not belong there."""
    tops = {path.partition("/")[0] for path in paths}
    return sorted(top for top in tops if top not in TOP_LEVEL and not top.startswith("."))


def project() -> dict[str, object]:
    """The [project] table."""
    return cast("dict[str, object]", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def names(requirements: list[str]) -> set[str]:
    """The distributions' names, without what stands behind them; written as PEP 503 has them."""
    bare = (re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", name) for name in bare}


def read_sources(*folders: str) -> dict[str, str]:
    """All Python files below the folders."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def test_the_layers_hold() -> None:
    sources = read_sources(*PACKAGES)
    assert {path.partition("/")[0] for path in sources} == set(PACKAGES)
    assert {room_of(path) for path in sources if not path.endswith("__init__.py")} == set(FLOORS), "a floor is empty"
    extras = cast("dict[str, list[str]]", project()["optional-dependencies"])
    declared = names([*cast("list[str]", project()["dependencies"]), *extras["asyncio"], *extras["parquet"]])
    assert breaches(sources, declared) == []


def test_the_tests_import_nothing_undeclared() -> None:
    extras = cast("dict[str, list[str]]", project()["optional-dependencies"])
    declared = names([*cast("list[str]", project()["dependencies"]), *extras["dev"]])
    sources = read_sources("tests")
    undeclared = [
        i.breach(f"{i.top} is not declared in pyproject.toml")
        for path, source in sources.items()
        for i in imports(path, source, set())
        if i.top not in {*PACKAGES, PUBLIC, "tests", *sys.stdlib_module_names} and not is_declared(i.target, declared)
    ]
    assert undeclared == []


def test_few_files_lie_loose() -> None:
    assert loose(read_sources(*PACKAGES)) == []


def test_the_lock_pins_every_direct_dependency_and_names_no_source() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = names(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    extras = cast("dict[str, list[str]]", project()["optional-dependencies"])
    direct = [*cast("list[str]", project()["dependencies"]), *extras["dev"]]
    assert [requirement for requirement in direct if ">=" not in requirement] == []
    assert names([*direct, "hatchling"]) - pinned == set()
    pin = r'[\w.-]+==[\w.]+( ; python_(full_)?version [<>]=? "3[.\d]+")? \\'
    hash_ = r"    --hash=sha256:[0-9a-f]{64}( \\)?"
    other = [line for line in lock.splitlines() if not re.fullmatch(rf"#.*|{pin}|{hash_}", line)]
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
        (
            "protocol/a.py",
            "\nimport daemon.fanout.hub",
            "protocol/a.py:2: protocol (floor 1) imports daemon.fanout.hub (floor 7)",
        ),
        (
            "protocol/a.py",
            "def f():\n    from connectors import base\n",
            "protocol/a.py:2: protocol (floor 1) imports connectors (floor 2)",
        ),
        (
            "connectors/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from daemon.tape.tape import Tape\n",
            "connectors/base.py:3: connectors (floor 2) imports daemon.tape.tape (floor 5)",
        ),
        (
            "connectors/base.py",
            "from ..daemon.tape import tape",
            "connectors/base.py:1: connectors (floor 2) imports daemon.tape (floor 5)",
        ),
        (
            "daemon/health/watch.py",
            "from daemon.tape.tape import Tape",
            "daemon/health/watch.py:1: daemon/health (floor 5) imports daemon.tape.tape (floor 5)",
        ),
        (
            "connectors/push/feed.py",
            "import connectors.venues.registry",
            "connectors/push/feed.py:1: connectors/push (floor 3) imports connectors.venues.registry (floor 4)",
        ),
        (
            "daemon/sessions/client.py",
            "import daemon.app",
            "daemon/sessions/client.py:1: daemon/sessions (floor 8) imports daemon.app (floor 12)",
        ),
        (
            "daemon/loose.py",
            "import daemon.host.clock",
            "daemon/loose.py:1: daemon/loose.py stands on no floor",
        ),
        (
            "connectors/venues/okx/tickers.py",
            "try:\n    import httpx as client\nexcept ImportError:\n    pass\n",
            "connectors/venues/okx/tickers.py:2: only connectors/poll/asking.py, connectors/poll/host.py, "
            "connectors/poll/poller.py import httpx",
        ),
        (
            "daemon/fanout/hub.py",
            "from trio_websocket import ConnectionClosed",
            "daemon/fanout/hub.py:1: only daemon/sessions/*.py, daemon/client/trio/*.py, daemon/*rehears*.py, "
            "connectors/push/connection.py, connectors/simulator/*.py import trio_websocket",
        ),
        (
            "daemon/fanout/hub.py",
            "from connectors.venues.binance.polls import Binance",
            f"daemon/fanout/hub.py:1: only {REGISTRY} imports connectors.venues.binance.polls",
        ),
        (
            "connectors/venues/okx/tickers.py",
            "from connectors.venues.binance.polls import number",
            f"connectors/venues/okx/tickers.py:1: only {REGISTRY} imports connectors.venues.binance.polls",
        ),
        (
            "daemon/fanout/hub.py",
            "from connectors.simulator.simulator import Simulator",
            f"daemon/fanout/hub.py:1: only {' and '.join(SIMULATES)} import connectors.simulator.simulator",
        ),
        (
            "connectors/venues/okx/tickers.py",
            "from connectors.simulator.venues.market import OKX",
            f"connectors/venues/okx/tickers.py:1: only {' and '.join(SIMULATES)} import "
            "connectors.simulator.venues.market",
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
        ("daemon/app.py", "from connectors.venues.registry import VENUES\nimport daemon.fanout.hub\n"),
        (REGISTRY, "from connectors.venues.binance.polls import Binance\n"),
        ("connectors/venues/binance/polls.py", "from connectors.venues.binance import errors\n"),
        ("daemon/fanout/hub.py", "from connectors.base import Event\nfrom . import turns\n"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert breaches({path: source}, DECLARED) == []


def test_a_venue_is_recognised_behind_a_from_import_of_its_package() -> None:
    sources = {
        "daemon/fanout/hub.py": "from connectors.venues.okx import tickers",
        "connectors/venues/okx/tickers.py": "",
    }
    only = f"daemon/fanout/hub.py:1: only {REGISTRY} imports connectors.venues.okx.tickers"
    assert breaches(sources, DECLARED) == [only]


def test_the_simulator_knows_no_venue_by_either_rule() -> None:
    said = breaches({"connectors/simulator/venues/okx.py": "from connectors.venues.okx.tickers import RULES"}, DECLARED)
    assert said == [
        "connectors/simulator/venues/okx.py:1: connectors/simulator (floor 3) imports "
        "connectors.venues.okx.tickers (floor 4)",
        f"connectors/simulator/venues/okx.py:1: only {REGISTRY} imports connectors.venues.okx.tickers",
    ]


def test_a_circle_is_found_also_when_one_import_is_inside_a_function() -> None:
    sources = {
        "daemon/host/a.py": "from daemon.host import b",
        "daemon/host/b.py": "import daemon.host.c",
        "daemon/host/c.py": "def late():\n    from daemon.host.a import x\n",
    }
    [said] = breaches(sources, DECLARED)
    assert re.match(r"daemon/host/[abc]\.py:[12]: import circle: ", said)
    assert all(module in said for module in ("daemon.host.a", "daemon.host.b", "daemon.host.c"))


def test_an_import_for_types_only_closes_a_circle_too() -> None:
    types_only = "import typing\nif typing.TYPE_CHECKING:\n    import daemon.host.a\n"
    sources = {"daemon/host/a.py": "import daemon.host.b", "daemon/host/b.py": types_only}
    [said] = breaches(sources, DECLARED)
    assert "import circle" in said


def test_a_circle_of_folders_is_found_though_no_file_is_in_one() -> None:
    sources = {
        "connectors/push/__init__.py": "",
        "connectors/push/one/__init__.py": "",
        "connectors/push/two/__init__.py": "",
        "connectors/push/one/a.py": "import connectors.push.two.b",
        "connectors/push/two/b.py": "",
        "connectors/push/two/c.py": "import connectors.push.one.d",
        "connectors/push/one/d.py": "",
    }
    [said] = breaches(sources, DECLARED)
    assert "circle of folders: " in said
    assert "connectors.push.one" in said
    assert "connectors.push.two" in said


def test_one_loose_file_too_many_is_named_with_the_others() -> None:
    fits = {f"daemon/{name}.py": "" for name in "abcde"} | {"daemon/host/f.py": ""}
    assert loose(fits) == []
    [said] = loose({**fits, "daemon/f.py": ""})
    assert said.startswith("daemon: 6 files lie loose, at most 5 may: daemon/a.py, ")


def test_a_stranger_at_the_top_level_is_named() -> None:
    assert strangers(["README.md", ".ci/run", "utils/a.py", "notes.txt"]) == ["notes.txt", "utils"]

"""The types of `/client.js`: they have every message, name nothing that is not there, and TypeScript takes them."""

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from daemon.routes.declarations import declarations
from daemon.routes.page import FOLDER, types_of_client
from protocol.codes import ErrorCode
from protocol.kinds import MESSAGES
from protocol.messages import ControlMessage

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
TYPES = types_of_client((FOLDER / "client.d.ts").read_bytes()).decode()
BUILT_IN = {"Array", "Record", "Promise", "Omit", "URL"}


def bare(text: str) -> str:
    """Without comments and texts."""
    return re.sub(r"/\*.*?\*/|'[^']*'|\"[^\"]*\"", "", text, flags=re.DOTALL)


def test_every_message_is_there_by_its_type() -> None:
    for struct in (*MESSAGES, *get_args(ControlMessage)):
        tag = struct.__struct_config__.tag
        assert TYPES.count(f'  type: "{tag}";\n') == 1, tag
    assert all(f'"{code}"' in declarations() for code in ErrorCode)


def test_what_is_named_is_declared_once() -> None:
    declared = re.findall(r"^export (?:interface|type|function) (\w+)", TYPES, re.MULTILINE)
    assert len(declared) == len(set(declared))
    named = set(re.findall(r"\b[A-Z]\w+", bare(TYPES)))
    assert named - {*declared, *BUILT_IN, "WebSocket"} == set()


def test_optional_fields_and_what_venues_add_are_told() -> None:
    text = bare(declarations())
    price = text[text.index("interface PriceUpdate") :].partition("}")[0]
    assert "  instrument?: string;" in price
    assert "  seq: number;" in price
    assert "[more: string]: unknown;" in text[text.index("interface OkxTicker") :].partition("}")[0]
    depth = text[text.index("interface DepthUpdate") :].partition("}")[0]
    assert "  bids: Array<[string, string]>;" in depth


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package, assembled."""
    assembled = tmp_path / "npm"
    runpy.run_path(str(ROOT / ".packaging" / "npm.py"))["assemble"](assembled)
    return assembled


def test_typescript_takes_them_and_finds_wrong_uses(package: Path, tmp_path: Path) -> None:
    tsc = shutil.which("tsc")
    if tsc is None:
        absent = "no tsc here; Debian and Ubuntu have it: apt-get install node-typescript"
        if os.environ.get("TICKERD_REQUIRE_TSC"):
            pytest.fail(absent)
        pytest.skip(absent)
    installed = tmp_path / "node_modules" / "tickerd-client"
    shutil.copytree(package, installed)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copyfile(HERE / "use_of_client.ts", tmp_path / "use.ts")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "node16", "--moduleResolution", "node16"]
    said = subprocess.run(
        [tsc, *options, "--lib", "es2022,dom", "use.ts"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_npm_packs_it(package: Path, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here")
    command = [npm, "pack", "--json", "--offline", str(package)]
    environ = {**os.environ, "npm_config_cache": str(tmp_path / "cache"), "npm_config_update_notifier": "false"}
    said = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    [packed] = json.loads(said.stdout)
    assert sorted(file["path"] for file in packed["files"]) == [
        "LICENSE",
        "README.md",
        "client.d.ts",
        "client.js",
        "package.json",
    ]
    assert (tmp_path / packed["filename"]).is_file()


def test_node_imports_the_package_by_its_name_and_says_what_it_lacks(package: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
    shutil.copytree(package, tmp_path / "node_modules" / "tickerd-client")
    (tmp_path / "use.mjs").write_text(
        "import {connect} from 'tickerd-client';\n"
        "globalThis.WebSocket = undefined;\n"
        "try { connect('ws://127.0.0.1:1/ws'); } catch (error) { console.log(error.name, error.message); }\n"
        "class Mine { close() {} }\n"
        "try { connect('/ws', {WebSocket: Mine}); } catch (error) { console.log(error.name); }\n"
        "const onState = ({state}) => console.log(state);\n"
        "connect('http://127.0.0.1:1/ws', {WebSocket: Mine, onState}).close();\n"
    )
    said = subprocess.run([node, "use.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20)
    assert said.stdout.splitlines() == [
        "TypeError no WebSocket here: pass one in the options, or use Node 22",
        "TypeError",
        "connecting",
        "closed",
    ]


def test_the_readme_of_the_package_uses_what_there_is(package: Path) -> None:
    described = json.loads((package / "package.json").read_text())
    assert f"from '{described['name']}'" in (package / "README.md").read_text()
    assert (package / described["exports"]["."]["default"]).is_file()
    assert (package / described["exports"]["."]["types"]).is_file()

"""The pins of an installation for service are those of requirements.lock, all that is needed, and no test tool."""

import pytest

from tests.audit import ROOT, read_lock
from tests.service_lock import BUILD, RUNTIME, locks
from tests.test_audit import LOCK, PYPROJECT, SHA, wants

PROJECT_LOCK = (ROOT / "requirements.lock").read_text()


def test_the_files_are_those_of_the_lock() -> None:
    made = locks(PROJECT_LOCK, (ROOT / "pyproject.toml").read_text())
    assert (RUNTIME.read_text(), BUILD.read_text()) == made, "`make lock` writes them"


def test_a_service_has_no_test_tool_and_no_build_tool() -> None:
    runtime, build = read_lock(RUNTIME.read_text()), read_lock(BUILD.read_text())
    assert (runtime.findings, build.findings) == ([], [])
    assert {"trio", "httpx", "msgspec", "sniffio"} <= runtime.pins.keys()
    assert not runtime.pins.keys() & {"pytest", "mypy", "ruff", "hypothesis", "playwright", "hatchling"}
    assert "hatchling" in build.pins
    assert runtime.pins.items() | build.pins.items() <= read_lock(PROJECT_LOCK).pins.items()


def test_each_part_has_what_it_wants_by_whatever_way_with_all_hashes() -> None:
    runtime, build = locks(LOCK, PYPROJECT, wants)
    assert read_lock(runtime).pins == {"httpx": "0.28.1", "h11": "0.16.0"}
    assert SHA[::-1] in runtime
    assert read_lock(build).pins == {"hatchling": "1.33.0"}


def test_what_is_needed_and_not_pinned_is_named() -> None:
    with pytest.raises(LookupError, match=r"not in requirements\.lock: h11"):
        locks(LOCK.replace("h11==", "h12=="), PYPROJECT, wants)

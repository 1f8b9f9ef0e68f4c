"""The dependency audit: each thing it looks for is found, and the project as it is passes."""

import datetime
from collections.abc import Sequence

import pytest

from tests import audit
from tests.audit import ADVISORIES, ROOT, Advisories, Advisory

SHA = "0123456789abcdef" * 4
LOCK = f"""#
# made by a tool
#
httpx==0.28.1 \\
    --hash=sha256:{SHA} \\
    --hash=sha256:{SHA[::-1]}
h11==0.16.0 \\
    --hash=sha256:{SHA}
hatchling==1.33.0 \\
    --hash=sha256:{SHA}
editables==0.6 \\
    --hash=sha256:{SHA}
"""
PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
[project]
dependencies = ["httpx>=0.28"]
[project.optional-dependencies]
dev = []
"""
DECLARED = {"httpx": ["h11<1", 'h2; extra == "http2"', 'nothing; python_version < "3"'], "hatchling": []}
KNOWN = Advisories(
    datetime.date(2026, 11, 22),
    [Advisory("h11", "CVE-2025-43859", "<0.16", "smuggling"), Advisory("HTTPX", "CVE-1", ">=0.20,<0.23", "URLs")],
)


def wants(name: str) -> Sequence[str]:
    return DECLARED.get(name, [])


def findings(lock: str = LOCK, pyproject: str = PYPROJECT) -> list[str]:
    return audit.audit(lock, pyproject, KNOWN, wants)


def test_the_project_has_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main() == 0, capsys.readouterr().out
    assert "no findings" in capsys.readouterr().out


def test_a_sound_lock_has_none() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("h11==0.16.0", "h11==0.15.0", "h11==0.15.0 is pinned: CVE-2025-43859 (<0.16): smuggling"),
        ("h11==0.16.0", "h11==0.15.0rc1", "h11==0.15.0rc1 is pinned: CVE-2025-43859 (<0.16): smuggling"),
        ("httpx==0.28.1", "HTTPX==0.22.0", "HTTPX==0.22.0 is pinned: CVE-1 (>=0.20,<0.23): URLs"),
        (f"h11==0.16.0 \\\n    --hash=sha256:{SHA}", "h11==0.16.0", "h11 has no hash"),
        (f"    --hash=sha256:{SHA}\nhatch", "hatch", "h11 has no hash"),
        ("h11==", "zombie==1.0 \\\n    --hash=sha256:" + SHA + "\nh11==", "nothing declared wants zombie"),
        ("#\nhttpx", "--index-url https://example.org/simple\nhttpx", "line 3 is neither a pin nor its hash: --index"),
        ("h11==0.16.0", "h11 @ https://example.org/h11.whl", "line 7 is neither a pin nor its hash: h11 @ https"),
        ("h11==0.16.0", "h11>=0.16.0", "line 7 is neither a pin nor its hash: h11>=0.16.0"),
        ("hatchling==1.33.0", "h11==1.33.0", "line 9: h11 is pinned twice"),
    ],
)
def test_a_bad_lock_is_found_out(old: str, new: str, expected: str) -> None:
    assert old in LOCK
    said = findings(LOCK.replace(old, new, 1))
    assert any(line.startswith(f"requirements.lock: {expected}") for line in said), said


def test_the_hash_of_another_digest_is_none() -> None:
    said = findings(LOCK.replace("sha256:", "md5:"))
    assert {f"requirements.lock: {name} has no hash" for name in ("httpx", "h11", "hatchling", "editables")} <= {*said}


@pytest.mark.parametrize(
    ("requirement", "lets_in"),
    [
        ("httpx>=0.28", False),
        ("httpx>=0.23", False),
        ("httpx>=0.22.1", True),
        ("httpx>=0.19", True),
        ("httpx<0.20", False),
        ("httpx", True),
        ("httpx~=0.22.0", True),
        ("Httpx[http2]>=0.20", True),
        ("trio>=0.1", False),
    ],
)
def test_a_range_that_lets_a_vulnerable_version_in_is_found_out(requirement: str, lets_in: bool) -> None:
    said = list(audit.admitted([requirement], KNOWN.advisory))
    assert [line.partition(" lets")[0] for line in said] == [requirement] * lets_in


def test_an_extra_that_is_asked_for_keeps_its_pins() -> None:
    lock = LOCK + f"h2==4.4.1 \\\n    --hash=sha256:{SHA}\n"
    assert findings(lock) == ["requirements.lock: nothing declared wants h2; `make lock` drops it"]
    assert findings(lock, PYPROJECT.replace("httpx>=", "httpx[http2]>=")) == []


def test_a_package_that_is_not_installed_is_named_and_not_passed_over() -> None:
    with pytest.raises(LookupError):
        audit.installed("no-such-package-here")
    said = list(audit.stale({}, ["no-such-package-here>=1"], audit.installed))
    assert said == ["no-such-package-here is wanted and not installed; `make install` does that"]


@pytest.mark.parametrize("range_", ["", "~=1.0", "!=1.0", ">1.0", "===1.0"])
def test_a_range_that_cannot_be_judged_by_its_ends_is_refused(range_: str) -> None:
    text = f'looked_over = 2026-11-22\n[[advisory]]\npackage = "a"\nid = "CVE-1"\nvulnerable = "{range_}"\nwhat = "x"\n'
    with pytest.raises(ValueError, match=r"CVE-1: .*allowed: >=, <, <=, =="):
        audit.read_advisories(text)


def test_the_known_advisories_are_about_what_is_pinned_and_named_once() -> None:
    advisories = audit.read_advisories(ADVISORIES.read_text())
    pins = audit.read_lock((ROOT / "requirements.lock").read_text()).pins
    assert {advisory.package for advisory in advisories.advisory} <= pins.keys()
    ids = [(advisory.package, advisory.id) for advisory in advisories.advisory]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids, key=lambda each: each[0])

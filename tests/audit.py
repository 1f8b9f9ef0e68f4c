"""The dependency audit that needs no network: is what the lock pins, and what we let others install, known to be good?

`python -m tests.audit` (part of `make check`) prints one line per finding and exits with 1 if there is any:

* a line of requirements.lock that is neither a pin nor its hash: an option, a file, an address;
* a pin without a hash, a package pinned twice, a pin that nothing declared in pyproject.toml wants (any more);
* a pin that `advisories.toml` knows to be vulnerable;
* a runtime dependency in pyproject.toml whose range lets a vulnerable version in.

Who wants what is read from the metadata of the installed packages. `make audit` asks the public databases instead.
"""

from __future__ import annotations

import datetime
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent.parent
ADVISORIES: Final = Path(__file__).with_name("advisories.toml")

PIN: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+]+)( ; (?P<marker>[\w. \"<>=!]+?))?(?P<more> \\)?"
)
HASH: Final = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?P<more> \\)?")

BUILD_HOOKS: Final = {"hatchling": ("editables",)}
"""What a build backend asks for only when it is run (PEP 660), and so does not declare."""

Wants = Callable[[str], Sequence[str]]
"""The requirements that a package declares, by its name. Raises: LookupError, if it is not installed."""


class Advisory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One known vulnerability; `vulnerable` is a range of versions, `what` says it in a few words."""

    package: str
    id: str
    vulnerable: str
    what: str
    alias: str = ""

    @property
    def range(self) -> SpecifierSet:
        """The vulnerable versions, pre-releases too."""
        return SpecifierSet(self.vulnerable, prereleases=True)


class Advisories(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file, and when it was last compared with the public databases."""

    looked_over: datetime.date
    advisory: list[Advisory]


class Lock(msgspec.Struct):
    """The pins by canonical name, as far as they are for this Python, and what is wrong with the file's lines."""

    pins: dict[str, str]
    findings: list[str]


def read_lock(text: str) -> Lock:
    """Take a lock apart that `make lock` has written: each pin, then its hashes, each on a line of its own."""
    lock = Lock({}, [])
    name, hashes, goes_on = "", 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        found = HASH.fullmatch(line)
        if found and goes_on:
            hashes, goes_on = hashes + 1, bool(found["more"])
            continue
        if name and not hashes:
            lock.findings.append(f"{name} has no hash")
        name, hashes, goes_on = "", 0, False
        if found := PIN.fullmatch(line):
            name, goes_on = canonicalize_name(found["name"]), bool(found["more"])
            if name in lock.pins:
                lock.findings.append(f"line {number}: {name} is pinned twice")
            if found["marker"] is None or Marker(found["marker"]).evaluate():
                lock.pins[name] = found["version"]
        elif line.strip() and not line.startswith("#"):
            lock.findings.append(f"line {number} is neither a pin nor its hash: {line.strip()[:80]}")
    return lock


def vulnerable_pins(pins: Mapping[str, str], advisories: Iterable[Advisory]) -> Iterator[str]:
    """A line for each advisory that a pinned version falls under."""
    for advisory in advisories:
        version = pins.get(canonicalize_name(advisory.package))
        if version is not None and Version(version) in advisory.range:
            yield f"{advisory.package}=={version} is pinned: {_said(advisory)}"


def admitted(requirements: Iterable[str], advisories: Sequence[Advisory]) -> Iterator[str]:
    """A line for each advisory under which the lowest version falls that a requirement allows, or a later one.

    Looked at are the ends of the ranges: where a requirement begins, and where a vulnerable range does.
    """
    for requirement in map(Requirement, requirements):
        mine = [advisory for advisory in advisories if _same(advisory.package, requirement.name)]
        for advisory in mine:
            ends = [Version("0"), *_begins(requirement.specifier), *_begins(advisory.range)]
            allowed = SpecifierSet(str(requirement.specifier), prereleases=True)
            if any(end in allowed and end in advisory.range for end in ends):
                yield f"{requirement} lets a vulnerable version in: {_said(advisory)}"


def stale(pins: Mapping[str, str], roots: Iterable[str], wants: Wants) -> Iterator[str]:
    """A line for each pin that no root wants, by whatever way; and for each that is wanted and not installed."""
    wanted, missing = closure(roots, wants)
    yield from (f"{name} is wanted and not installed; `make install` does that" for name in sorted(missing))
    yield from (f"nothing declared wants {name}; `make lock` drops it" for name in sorted(pins.keys() - wanted))


def closure(
    roots: Iterable[str], wants: Wants, hooks: Mapping[str, Sequence[str]] = BUILD_HOOKS
) -> tuple[set[str], set[str]]:
    """All that these requirements want, by whatever way: the names; and those of them that are not installed."""
    waiting = [each for each in map(Requirement, roots) if each.marker is None or each.marker.evaluate()]
    seen: set[tuple[str, str]] = set()
    missing: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                declared = [Requirement(line) for line in (*wants(name), *hooks.get(name, ()))]
            except LookupError:
                missing.add(name)
                break
            waiting += [r for r in declared if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}, missing


def installed(name: str) -> Sequence[str]:
    """What an installed package declares. Raises: LookupError, if it is not installed."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise LookupError(name) from None


def audit(lock_text: str, pyproject_text: str, advisories: Advisories, wants: Wants = installed) -> list[str]:
    """Every finding, as a line."""
    tables = tomllib.loads(pyproject_text)
    runtime: list[str] = tables["project"]["dependencies"]
    extras: dict[str, list[str]] = tables["project"].get("optional-dependencies", {})
    # The lock is for those who work on the project.
    roots = [*runtime, *extras.get("dev", ()), *tables["build-system"]["requires"]]
    lock = read_lock(lock_text)
    return [
        *(f"requirements.lock: {finding}" for finding in lock.findings),
        *(f"requirements.lock: {finding}" for finding in vulnerable_pins(lock.pins, advisories.advisory)),
        *(f"requirements.lock: {finding}" for finding in stale(lock.pins, roots, wants)),
        *(f"pyproject.toml: {finding}" for finding in admitted(runtime, advisories.advisory)),
    ]


def read_advisories(text: str) -> Advisories:
    """Raises: ValueError, also where a range cannot be judged by its ends."""
    advisories = msgspec.toml.decode(text, type=Advisories)
    for advisory in advisories.advisory:
        unfit = [str(part) for part in advisory.range if part.operator not in (">=", "<", "<=", "==")]
        if unfit or not advisory.vulnerable:
            raise ValueError(f"{advisory.id}: `vulnerable` has {unfit or 'nothing'}; allowed: >=, <, <=, ==")
    return advisories


def _begins(range_: SpecifierSet) -> list[Version]:
    return [Version(part.version) for part in range_ if part.operator in (">=", "==", "~=") and "*" not in part.version]


def _same(one: str, other: str) -> bool:
    return canonicalize_name(one) == canonicalize_name(other)


def _said(advisory: Advisory) -> str:
    return f"{advisory.id} ({advisory.vulnerable}): {advisory.what}"


def main() -> int:
    """Print the findings; 1 if there are any."""
    advisories = read_advisories(ADVISORIES.read_text())
    lock = (ROOT / "requirements.lock").read_text()
    findings = audit(lock, (ROOT / "pyproject.toml").read_text(), advisories)
    pins = len(read_lock(lock).pins)
    known = f"{len(advisories.advisory)} advisories, looked over on {advisories.looked_over}"
    sys.stdout.write("".join(f"{finding}\n" for finding in findings))
    sys.stdout.write(f"audit: {pins} pins, {known}: {len(findings) or 'no'} finding{'s' * (len(findings) != 1)}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

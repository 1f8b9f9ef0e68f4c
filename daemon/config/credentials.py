"""Secrets that systemd hands over as files (`LoadCredential=`, `SetCredential=`), for the keys of the configuration.

systemd names their folder in `$CREDENTIALS_DIRECTORY`. Only the daemon's user can read it; unlike the environment, its
content is visible neither to `systemctl show` nor to child processes. A credential overrides the configuration file,
and the environment overrides both. No error line shows a credential's content.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final, Literal

from connectors.venues.registry import VENUES
from daemon.config import venues
from daemon.config.reader import Problems, dotted, parse_toml
from daemon.config.settings import File
from daemon.host.text import decoded

DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""The variable by which systemd names the folder (systemd.exec, "Credentials")."""

CREDENTIALS: Final[dict[str, tuple[str, ...]]] = {
    **venues.secrets(),
    **venues.proxies(),
    "cluster_password": ("cluster", "password"),
}
"""By file name, such as `coingecko_api_key`: the key whose value the file holds."""

TABLES: Final = {"tokens": "tokens"}
"""By file name: the section whose tables the file holds, as TOML in the form of the configuration file."""

_MOST_BYTES: Final = 4096
_MOST_TABLE_BYTES: Final = 1024 * 1024


def overlay(tree: dict[str, Any], folder: Path, problems: Problems) -> None:
    """Write the credentials in the folder over a tree that came from a file. All of them are optional."""
    for name, path in CREDENTIALS.items():
        key = ".".join(path)
        text = _text(folder / name, key, "ascii", _MOST_BYTES, problems)
        table: Any = tree
        for part in path[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) and text is not None else None
        if isinstance(table, dict):
            problems.came_from(key, f"{DIRECTORY}/{name}")
            table[path[-1]] = text
    for name, section in TABLES.items():
        _overlay_tables(tree, section, folder / name, problems)


def unused(folder: Path, file: File) -> list[str]:
    """What is in the folder and is read by nobody: a sentence each, with what may have been meant."""
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:
        return []
    found = []
    for name in names:
        if name in CREDENTIALS:
            section, venue, *_ = CREDENTIALS[name]
            if section == "cluster":
                if not file.cluster.url:
                    found.append(f"the credential {name} is not used: cluster.url is not set")
            elif not file.connectors.of(VENUES[venue]).enabled:
                found.append(f"the credential {name} is not used: connectors.{venue}.enabled is false")
        elif name not in TABLES and str(folder / name) not in (file.server.certificate, file.server.key):
            allowed = (*CREDENTIALS, *TABLES)
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"nearest is {near[0]}" if near else f"known are {', '.join(allowed)}"
            found.append(f"the credential {name} is not used: there is no such one; {hint}")
    return found


def _overlay_tables(tree: dict[str, Any], section: str, file: Path, problems: Problems) -> None:
    """Each table of the file replaces the one of the same name, or is added."""
    text = _text(file, section, "utf-8", _MOST_TABLE_BYTES, problems)
    if text is None:
        return
    try:
        given = parse_toml(text)
    except ValueError as error:
        problems.plain(section, f"the credential {file}: {error}")
        return
    tables = given.pop(section, {})
    if given or not isinstance(tables, dict):
        problems.plain(section, f"the credential {file} holds something else than [{section}.NAME] tables")
        return
    present = tree.setdefault(section, {})
    if isinstance(present, dict):
        present.update(tables)
        for name, table in tables.items():
            for key in table if isinstance(table, dict) else ():
                problems.came_from(dotted((section, name, key)), f"{DIRECTORY}/{file.name}")


def _text(file: Path, key: str, encoding: Literal["ascii", "utf-8"], most_bytes: int, problems: Problems) -> str | None:
    """The content of the file; None if there is no file, or if it cannot be read, which is noted."""
    try:
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
        text = decoded(content).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.plain(key, f"the credential {file} cannot be read: {error.strerror or error}")
        return None
    except ValueError as error:
        problems.plain(key, f"the credential {file} is {error}")
        return None
    if encoding == "ascii" and not text.isascii():
        problems.plain(key, f"the credential {file} is not printable ASCII")
        return None
    if encoding == "ascii" and not text:
        problems.plain(key, f"the credential {file} is empty")
        return None
    if len(content) > most_bytes:
        problems.plain(key, f"the credential {file} has more than {most_bytes} bytes")
        return None
    return text

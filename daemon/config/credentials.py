"""Secrets that systemd hands over as files (`LoadCredential=`, `SetCredential=`), for the keys of the configuration.

systemd names their folder in `$CREDENTIALS_DIRECTORY`. Only the daemon's user can read it; unlike the environment, its
content is visible neither to `systemctl show` nor to child processes. A credential overrides the configuration file,
and the environment overrides both. No error line shows a credential's content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from daemon.config import venues
from daemon.config.reader import Problems, dotted, parse_toml

DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""The variable by which systemd names the folder (systemd.exec, "Credentials")."""

CREDENTIALS: Final = venues.secrets() | venues.proxies()
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
        text = content.decode(encoding).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.plain(key, f"the credential {file} cannot be read: {error.strerror or error}")
        return None
    except UnicodeDecodeError:
        wanted = {"ascii": "printable ASCII", "utf-8": "text in UTF-8"}[encoding]
        problems.plain(key, f"the credential {file} is not {wanted}")
        return None
    if len(content) > most_bytes:
        problems.plain(key, f"the credential {file} has more than {most_bytes} bytes")
        return None
    return text

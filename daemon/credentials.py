"""Secrets that systemd hands over as files (`LoadCredential=`, `SetCredential=`), for the keys of the configuration.

systemd names their folder in `$CREDENTIALS_DIRECTORY`. Only the daemon's user can read it, and no `systemctl show` and
no child process sees what is in it, as they would of the environment. A credential wins over the configuration's file,
the environment over both. No line about one shows what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from daemon.config_reader import Problems

DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""The variable by which systemd names the folder (systemd.exec, "Credentials")."""

CREDENTIALS: Final = {"coingecko_api_key": ("connectors", "coingecko", "api_key")}
"""By file name: the key whose value it holds."""

_MOST_BYTES: Final = 4096


def overlay(tree: dict[str, Any], folder: Path, problems: Problems) -> None:
    """Write the credentials that are in the folder over a tree that came from a file. None need be there."""
    for name, path in CREDENTIALS.items():
        key = ".".join(path)
        try:
            with (folder / name).open("rb") as file:
                text = file.read(_MOST_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.plain(key, f"the credential {folder / name} cannot be read: {error.strerror or error}")
            continue
        except UnicodeDecodeError:
            problems.plain(key, f"the credential {folder / name} is not printable ASCII")
            continue
        table: Any = tree
        for part in path[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            problems.came_from(key, f"{DIRECTORY}/{name}")
            table[path[-1]] = text

"""Variables that begin as ours do and are none of ours: what container engines write about the services next door.

Kubernetes gives every container the addresses of all services of its namespace (kubernetes.io, "Accessing the
Service", environment variables), Docker those of linked containers with all of their environment (docs.docker.com,
"Legacy container links"), which Amazon ECS has taken over. Each name begins with that of the service, so next to one
called `tickerd`, or `tickerd-anything`, they look like settings of ours with a mistake in them:

    TICKERD_SERVICE_HOST=10.0.0.7              TICKERD_PORT=tcp://10.0.0.7:8000
    TICKERD_SERVICE_PORT=8000                  TICKERD_PORT_8000_TCP=tcp://10.0.0.7:8000
    TICKERD_SERVICE_PORT_HTTP=8000             TICKERD_PORT_8000_TCP_PROTO=tcp, _PORT=8000, _ADDR=10.0.0.7
    TICKERD_NAME=/web/tickerd                  TICKERD_ENV_PATH=/bin

A variable is passed over only where its name and its value are both of such a form: `TICKERD_PORT=9000` is a mistake of
a person, who wants to hear of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from daemon.config.reader import ENVIRONMENT_PREFIX, dotted, is_setting

_URL: Final = re.compile(r"(?:tcp|udp|sctp)://(?P<host>\[[0-9a-f:.]+\]|[^\s:/@]+):(?P<port>[0-9]{1,5})", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_MOST_NAMED: Final = 30
"""A service has four variables, and three more for each of its ports."""


def _is_port(value: str) -> bool:
    return bool(_NUMBER.fullmatch(value)) and 1 <= int(value) <= 65535


def _is_host(value: str) -> bool:
    """Whether it is an address that a service can have. Where a daemon is told to listen there are others too."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback)


def _is_url(value: str) -> bool:
    found = _URL.fullmatch(value)
    return found is not None and _is_port(found["port"])


def _is_protocol(value: str) -> bool:
    return value.lower() in ("tcp", "udp", "sctp")


def _is_link(value: str) -> bool:
    """The names of both containers, as `/web/tickerd`."""
    return bool(re.fullmatch(r"(/[\w.-]+){2,}", value))


_ANY: Final = r"[A-Z0-9_.]*"
_PORT: Final = r"_PORT_[0-9]{1,5}_(?:TCP|UDP|SCTP)"
_FORMS: Final = (
    (re.compile(rf"{_ANY}_SERVICE_HOST"), _is_host),
    (re.compile(rf"{_ANY}_SERVICE_PORT(?:_[A-Z0-9_]+)?"), _is_port),
    (re.compile(rf"{_ANY}_PORT"), _is_url),
    (re.compile(rf"{_ANY}{_PORT}(?:_START|_END)?"), _is_url),
    (re.compile(rf"{_ANY}{_PORT}_PROTO"), _is_protocol),
    (re.compile(rf"{_ANY}{_PORT}_PORT(?:_START|_END)?"), _is_port),
    (re.compile(rf"{_ANY}{_PORT}_ADDR"), _is_host),
    (re.compile(rf"{_ANY}_NAME"), _is_link),
)
"""What follows the service's name in the variable's, and what its value must be."""

_LINKED_ENVIRONMENT: Final = re.compile(r"(?:_[A-Z0-9.]+)*_ENV_.+")
"""The environment of a linked container, which may be anything. Two underscores before `_ENV_` are ours: a section."""


def neighbours(environ: Mapping[str, str], settings: type[msgspec.Struct]) -> list[str]:
    """The variables that a container engine wrote, sorted; none of them is a key of these settings."""
    return sorted(
        name
        for name, value in environ.items()
        if _is_neighbours(name.upper(), value) and not is_setting(settings, name)
    )


def _is_neighbours(name: str, value: str) -> bool:
    if not name.startswith(ENVIRONMENT_PREFIX):
        return False
    rest = name.removeprefix(ENVIRONMENT_PREFIX.removesuffix("_"))
    if _LINKED_ENVIRONMENT.fullmatch(rest):
        return True
    return any(form.fullmatch(rest) and fits(value.strip()) for form, fits in _FORMS)


def passed_over(names: Sequence[str]) -> str:
    """The one sentence about variables that were passed over; "" where there are none. It shows no value."""
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    named = ", ".join(dotted((name,)) for name in names[:_MOST_NAMED])
    return (
        f"passed over {named}{more}: Kubernetes and Docker write "
        "such variables about a service or container whose name begins with tickerd; they are no settings, which have "
        f"the form {ENVIRONMENT_PREFIX}SECTION__KEY. `enableServiceLinks: false` in the pod's specification, or "
        "another name for the service, keeps them away"
    )

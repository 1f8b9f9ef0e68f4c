"""TypeScript declarations of the messages, made from the Structs of `protocol/`, for who uses `/client.js`.

They come from the same JSON Schemas as `/asyncapi.json` (`protocol/schemas.py`), so they match the daemon's own
encoder; the docstrings become comments. What the client itself has (`connect` and its options) is written by hand, in
`web/client.d.ts`, and stands before them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final, cast, get_args

import msgspec

from protocol.answers import History
from protocol.codes import CloseCode, ErrorCode
from protocol.kinds import MESSAGES, PAYLOADS
from protocol.messages import Command, ControlMessage
from protocol.payloads import SCHEMAS
from protocol.schemas import Object, schema_name, schemas

_CONTROLS: Final = cast("tuple[type[msgspec.Struct], ...]", get_args(ControlMessage))
_NAMES: Final = {"Error": "ErrorMessage"}
"""What would hide a global of JavaScript's is called otherwise."""

_OPEN: Final = {"ErrorCode": " | (string & {})", "CloseCode": " | (number & {})"}
"""Later versions may have more of these codes."""

_SIMPLE: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def declarations() -> str:
    """The declarations of every message, of what `data` holds, and of the commands."""
    types = [*MESSAGES, *PAYLOADS, *_CONTROLS, *get_args(Command), History, ErrorCode, CloseCode]
    made = schemas(types)
    packed = {schema_name(message, packed=True) for message in MESSAGES}
    parts = [_declared(name, schema) for name, schema in made.items() if name not in packed]
    parts.append(_union("DataMessage", "Every data message.", MESSAGES))
    parts.append(_union("ControlMessage", "Every other message of the daemon.", _CONTROLS))
    return "\n".join(parts)


def _declared(name: str, schema: Object) -> str:
    said = _comment(schema.get("description", ""), "")
    if "properties" not in schema:
        return f"{said}export type {_named(name)} = {_type(schema)}{_OPEN.get(name, '')};\n"
    return f"{said}export interface {_named(name)} {{\n{''.join(_fields(schema))}}}\n"


def _fields(schema: Object) -> Iterator[str]:
    for field, of in schema["properties"].items():
        optional = "" if field in schema.get("required", ()) else "?"
        yield f"{_comment(of.get('description', ''), '  ')}  {field}{optional}: {_type(of)};\n"
    if schema.get("additionalProperties") is True:
        yield "  [more: string]: unknown;\n"


def _union(name: str, meaning: str, structs: Iterable[type[msgspec.Struct]]) -> str:
    members = "".join(f"\n  | {_named(struct.__name__)}" for struct in structs)
    return f"{_comment(meaning, '')}export type {name} ={members};\n"


def _type(schema: Object) -> str:
    """The type of a value, by its schema."""
    match schema:
        case {"$ref": str(reference)}:
            return _named(reference.removeprefix(SCHEMAS))
        case {"enum": values}:
            return " | ".join(json.dumps(value) for value in values)
        case {"anyOf": options}:
            return " | ".join(dict.fromkeys(_type(each) for each in options))
        case {"type": "array", "items": items, "minItems": least, "maxItems": most} if least == most:
            return f"[{', '.join([_type(items)] * least)}]"
        case {"type": "array", **rest}:
            return f"Array<{_type(rest.get('items', {}))}>"
        case {"type": "object", "properties": _}:
            return f"{{\n{''.join(_fields(schema))}}}"
        case {"type": "object", **rest}:
            inner = rest.get("additionalProperties")
            return f"Record<string, {_type(inner) if isinstance(inner, dict) else 'unknown'}>"
        case {"type": str(simple)}:
            return _SIMPLE[simple]
        case _:
            return "unknown"


def _named(name: str) -> str:
    return _NAMES.get(name, name)


def _comment(text: str, indent: str) -> str:
    """A comment of that text, "" of none."""
    text = text.replace("*/", "* /")
    if not text:
        return ""
    if "\n" not in text:
        return f"{indent}/** {text} */\n"
    lines = "".join(f"{indent} * {line}".rstrip() + "\n" for line in text.splitlines())
    return f"{indent}/**\n{lines}{indent} */\n"

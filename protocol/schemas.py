"""JSON Schemas of the Structs: they describe the messages to other programs.

The schemas are generated: msgspec derives a schema from the Struct, the docstring becomes its description, and the
docstring's `Attributes:` section the descriptions of the fields. So a schema always matches the daemon's own encoder
and decoder. No schema forbids unknown fields, since later versions may add some.

They use only what JSON Schema's draft 7, on which AsyncAPI builds, and 2020-12 have in common: either validator works.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from protocol.codes import CloseCode, ErrorCode
from protocol.kinds import held
from protocol.messages import Data, number_fields
from protocol.payloads import DIGITS, SCHEMAS, VenueObject

Object: TypeAlias = dict[str, Any]
"""A JSON object."""

_PACKED_NUMBER: Final = {
    "type": "string",
    "pattern": f"^{DIGITS}$",
    "description": "The venue's digits as text: MessagePack has no decimal number, and none may pass through a float.",
}


def schemas(types: Iterable[type]) -> Object:
    """JSON Schemas of these types and of all types inside them, by name."""
    found: dict[str, type] = {}
    for each in types:
        found.setdefault(each.__name__, each)
    _, made = msgspec.json.schema_components(found.values(), ref_template=SCHEMAS + "{name}")
    for struct in found.values():
        if issubclass(struct, Data):
            made[struct.__name__]["properties"]["data"] = one_of(held(struct))
        if issubclass(struct, msgspec.Struct):
            _explain(made[struct.__name__], struct)
        if issubclass(struct, VenueObject):
            made[struct.__name__]["additionalProperties"] = True
    for codes in (ErrorCode, CloseCode):
        made[codes.__name__] |= _meanings(codes)
    for struct in (each for each in found.values() if issubclass(each, Data)):
        schema = made[struct.__name__]
        packed = schema["properties"] | dict.fromkeys(number_fields(struct), _PACKED_NUMBER)
        made[schema_name(struct, packed=True)] = {
            **schema,
            "title": schema_name(struct, packed=True),
            "properties": packed,
        }
    return made


def one_of(structs: Iterable[type[msgspec.Struct]]) -> Object:
    """The schema of a value that is one of these."""
    references: list[Object] = [{"$ref": f"{SCHEMAS}{struct.__name__}"} for struct in structs]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _explain(schema: Object, struct: type[msgspec.Struct]) -> None:
    """Add the docstring as description; its `Attributes:` section goes to the fields."""
    text, own = docstring(struct)
    schema["description"] = text
    fields: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        fields |= docstring(each)[1]
    for field, meaning in (fields | own).items():
        described = schema["properties"].get(field, {"$ref": ""})
        if "$ref" not in described:  # draft 7 ignores everything beside a reference
            described.setdefault("description", meaning)


def docstring(of: type) -> tuple[str, dict[str, str]]:
    """The docstring's text, and the entries of its `Attributes:` section by field."""
    text, _, section = (inspect.cleandoc(of.__doc__) if of.__doc__ else "").partition("\n\nAttributes:\n")
    said = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return text.strip(), {name: " ".join(meaning.split()) for name, meaning in said}


def _meanings(codes: type[ErrorCode | CloseCode]) -> Object:
    """What each code means, for people (the description) and for generators (`x-enum-...`)."""
    meanings = {code: code.meaning for code in codes}
    extra: Object = {}
    if issubclass(codes, CloseCode):
        extra = {"x-enum-may-reconnect": [code.may_reconnect for code in codes]}
        back = {True: "Come back.", False: "Do not come back unchanged."}
        meanings = {code: f"{code.meaning} {back[code.may_reconnect]}" for code in codes}
    lines = "\n".join(f"* `{code}`: {meaning}" for code, meaning in meanings.items())
    return {
        "description": f"{docstring(codes)[0]}\n\n{lines}",
        "enum": [code.value for code in codes],  # in the order of the lists below; msgspec sorts them
        "x-enum-varnames": [code.name for code in codes],
        "x-enum-descriptions": list(meanings.values()),
        **extra,
    }


def schema_name(struct: type[msgspec.Struct], *, packed: bool) -> str:
    """The name of its schema. Data messages have a second schema for MessagePack, because of their numbers."""
    return f"Packed{struct.__name__}" if packed and issubclass(struct, Data) else struct.__name__

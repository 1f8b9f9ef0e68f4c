"""Judges messages by the description that the daemon publishes, more strictly than the description asks for.

A client must take fields that its schema does not name, for later versions may add some. The daemon itself must not
send any: its description would lag behind it. So here a field without a name in the schema is an error, except where
the schema says itself that others may come (`additionalProperties`), as it does of what venues say.
"""

import copy
import json
from typing import Any

from jsonschema import Draft202012Validator

Json = Any


def strict(schema: Json) -> Json:
    """The schema, and everything in it, without room for fields that it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(each) for name, each in schema.items()}
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


class Description:
    """One document, as the daemon sent it."""

    def __init__(self, document: bytes | str) -> None:
        self.document: dict[str, Json] = json.loads(document)
        components = copy.deepcopy(self.document["components"])
        components["schemas"] = {name: strict(schema) for name, schema in components["schemas"].items()}
        self._components = components
        self._validators: dict[str, Draft202012Validator] = {}

    def resolve(self, reference: str) -> Json:
        """What stands at `#/...`. Raises: KeyError, where nothing does."""
        found: Json = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def messages(self, channel: str) -> dict[str, Json]:
        """The message objects of a channel, by name."""
        named = self.document["channels"][channel]["messages"]
        return {name: self.resolve(reference["$ref"]) for name, reference in named.items()}

    def said_by_daemon(self, channel: str) -> set[str]:
        """The names of those that the daemon sends there."""
        names: set[str] = set()
        here = f"#/channels/{channel}"
        for operation in self.document["operations"].values():
            if operation["channel"]["$ref"] == here:
                told = operation if operation["action"] == "send" else operation["reply"]
                names |= {each["$ref"].rpartition("/")[2] for each in told["messages"]}
        return names

    def complaints(self, message: Json, channel: str) -> list[str]:
        """What is wrong with a message that came on that channel; nothing, if it is as described."""
        described = self.messages(channel).get(message.get("type"))
        if described is None:
            return [f"{channel} has no message of the type {message.get('type')!r}"]
        return self.errors(message, described["payload"]["$ref"])

    def errors(self, value: Json, reference: str) -> list[str]:
        """What keeps a value from being valid by the schema at `reference`, strictly."""
        validator = self._validators.get(reference)
        if validator is None:
            schema = {"$ref": reference, "components": self._components}
            validator = self._validators[reference] = Draft202012Validator(schema)
        return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]

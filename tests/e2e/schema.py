"""The schema of what verbs print as JSON, `docs/cli.schema.json`, as the tests hold it: what it does not name must not be printed."""

import json

import jsonschema
from conftest import ROOT


def closed(schema):
    """The schema with no other properties in objects than those that it names, there or in what it is built on."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema or isinstance(schema.get("properties"), dict):
        schema = {"unevaluatedProperties": False, **schema}
    # What something is built on leaves room for the rest of it.
    return {name: one if name == "allOf" else closed(one) for name, one in schema.items()}


def inner(definition):
    """A definition, closed within: others may be built on it."""
    return {name: one for name, one in closed(definition).items() if name != "unevaluatedProperties"}


OPEN = json.loads((ROOT / "docs/cli.schema.json").read_text())
SCHEMA = OPEN | {"$defs": {name: inner(definition) for name, definition in OPEN["$defs"].items()}}


def check_json(text, name):
    """The document, checked against the definition of that name in the schema."""
    document = json.loads(text)
    jsonschema.validate(document, {**SCHEMA, "$ref": f"#/$defs/{name}", "unevaluatedProperties": False})
    return document

from collections.abc import Iterator
from typing import Any

from llm_router.config.schema import (
    HINTS,
    Backend,
    Client,
    Document,
    Entry,
    Key,
    RequestRules,
    Scheduler,
    Server,
    json_schema,
)

SECTIONS = (Document, Server, Key, Client, Scheduler, Backend, Entry, RequestRules)


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for item in schema.values():
            yield from parts(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from parts(item)


def test_every_key_says_what_it_is_for() -> None:
    silent = [
        f"{section.__name__}.{name}"
        for section in SECTIONS[1:]
        for name, field in section.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_the_schema_refuses_unknown_keys_everywhere_but_in_its_place_for_shared_pieces() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert len(sections) == len(SECTIONS)
    assert all(section["additionalProperties"] is False for section in sections)
    assert schema["patternProperties"] == {"^x-": {}}


def test_a_key_may_be_one_word_or_a_section_for_editors_too() -> None:
    keys = json_schema()["$defs"]["Server"]["properties"]["keys"]
    assert keys["anyOf"][0] == {"type": "string"}
    assert keys["anyOf"][1]["items"]["anyOf"] == [{"type": "string"}, {"$ref": "#/$defs/Key"}]


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    references = {part["$ref"] for part in parts(schema) if "$ref" in part}
    assert references <= {f"#/$defs/{name}" for name in schema["$defs"]}
    assert references


def test_a_hint_names_a_word_that_no_section_has_of_itself() -> None:
    known = {name for section in SECTIONS for name in section.model_fields}
    assert HINTS.keys() & known == {"name"}, "a hint for a word that is right somewhere must be meant"

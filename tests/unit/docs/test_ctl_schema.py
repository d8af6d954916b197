"""docs/ctl.schema.json is a schema of every command, and what ctl's own tests are held against."""

from __future__ import annotations

import json

import jsonschema
import pytest

from ctl.app import COMMANDS
from tests.support import ctl_schema
from tests.support.ctl_shapes import COMMANDS as SHAPES


def test_the_page_is_what_the_shapes_say() -> None:
    assert ctl_schema.PAGE.read_text(encoding="utf-8") == ctl_schema.text(), "run: make docs"
    jsonschema.Draft202012Validator.check_schema(json.loads(ctl_schema.text()))


def test_every_command_that_answers_is_in_it() -> None:
    described = {name.split()[0] for name in SHAPES}
    assert described == set(COMMANDS)


def test_a_key_that_nobody_wrote_down_is_found_and_readers_may_let_it_be() -> None:
    answer = {"version": "1", "platform": "x", "python": "3", "colour": "blue"}
    with pytest.raises(AssertionError, match="colour"):
        ctl_schema.check("version", answer)
    published = {**ctl_schema.schema(), "$ref": "#/$defs/ctl version"}
    jsonschema.Draft202012Validator(published).validate(answer)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("storage check --profile main -o json", "storage check"),
        ("backup --wait -o json", "backup"),
        ("-o json list --size 3", "list"),
        ("nonsense", None),
    ],
)
def test_a_command_line_is_known(line: str, command: str | None) -> None:
    assert ctl_schema.command_of(line.split()) == command

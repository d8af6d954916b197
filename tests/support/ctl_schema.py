"""docs/ctl.schema.json: a JSON Schema of what `ctl … -o json` prints, and answers held against it.

The published schema lets further keys be, since answers change by addition; the one that tests use
is closed, so that a key nobody wrote down is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema

from agent.wire.operations import State
from tests.support.ctl_shapes import COMMANDS, SHARED, Shape
from tests.support.product import ROOT

PAGE: Final = ROOT / "docs" / "ctl.schema.json"
_TYPES: Final = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "truth": "boolean",
    "null": "null",
}
_ERROR: Final[Shape] = {"error": "text", "hint?": "text", "*": "anything"}
"""Instead of an answer, or beside what is known of one."""


def schema(*, closed: bool = False) -> dict[str, Any]:
    """Every shape under `$defs`, a command's under `ctl COMMAND`."""
    commands = {
        f"ctl {name}": {"anyOf": [_of(shape, closed), {"$ref": "#/$defs/error"}]}
        for name, shape in COMMANDS.items()
    }
    shared = {name: _of(shape, closed) for name, shape in SHARED.items()}
    states = {"enum": [state.value for state in State]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What ctl prints with -o json",
        "description": "A command's answer is the definition of its name, e.g. "
        "#/$defs/ctl%20backup. Answers change only by addition: let further keys be.",
        "$defs": {**commands, **shared, "status": states, "error": _of(_ERROR, closed)},
    }


def _of(shape: Shape, closed: bool) -> dict[str, Any]:
    if isinstance(shape, tuple):
        return {"anyOf": [_of(one, closed) for one in shape]}
    if isinstance(shape, list):
        return {"type": "array", "items": _of(shape[0], closed)}
    if isinstance(shape, dict):
        return _object(shape, closed)
    if shape.startswith("@"):
        return {"$ref": f"#/$defs/{shape[1:]}"}
    if shape == "anything":
        return {}
    if shape.endswith("?"):
        return {"type": [_TYPES[shape[:-1]], "null"]}
    return {"type": _TYPES[shape]}


def _object(shape: dict[str, Shape], closed: bool) -> dict[str, Any]:
    named = {key: one for key, one in shape.items() if key != "*"}
    found: dict[str, Any] = {"type": "object"}
    if named:
        found["properties"] = {key.rstrip("?"): _of(one, closed) for key, one in named.items()}
        found["required"] = [key for key in named if not key.endswith("?")]
    if "*" in shape:
        found["additionalProperties"] = _of(shape["*"], closed)
    elif closed:
        found["additionalProperties"] = False
    return found


@cache
def _validator(command: str) -> jsonschema.Draft202012Validator:
    whole = schema(closed=True)
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator({**whole, "$ref": f"#/$defs/ctl {command}"})


def command_of(arguments: Sequence[str]) -> str | None:
    """Which command a command line is of; None for none that answers."""
    words = [word for word in arguments if not word.startswith("-")]
    for first, second in zip(words, [*words[1:], ""], strict=False):
        if f"{first} {second}" in COMMANDS:
            return f"{first} {second}"
        if first in COMMANDS:
            return first
    return None


def check(command: str, answer: Any) -> None:
    """Raises `AssertionError` where an answer is not what the page says."""
    errors = sorted(_validator(command).iter_errors(answer), key=lambda error: -len(error.path))
    told = [f"{error.json_path}: {_deepest(error).message}" for error in errors]
    assert not errors, f"ctl {command} answers what docs/ctl.schema.json does not say: {told[:3]}"


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    found = jsonschema.exceptions.best_match([error])
    return found if isinstance(found, jsonschema.ValidationError) else error


def check_printed(arguments: Sequence[str], printed: str) -> None:
    """The same of what a command line printed, where it asks for JSON and is of a command."""
    asks = {"json", "json-pretty"} & {argument.rpartition("=")[2] for argument in arguments}
    command = command_of(arguments)
    if not asks or command is None or not printed.strip():
        return
    for answer in _values(printed):
        check(command, answer)


def _values(printed: str) -> Iterator[Any]:
    decoder, rest = json.JSONDecoder(), printed.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()


def text() -> str:
    """The page."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def main(path: Path = PAGE) -> None:
    """Write it anew."""
    path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()

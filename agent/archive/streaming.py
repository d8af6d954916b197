"""Reading JSON with very long lists: each element becomes its record before the next is looked at.

A manifest of 100,000 collections has 28 MB of JSON. Decoded as a whole that is a tree of 150 MB,
beside the records that are made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from agent.wire.record import Record

_decode: Final = json.JSONDecoder().raw_decode
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def parse_rows(text: str, lists: Mapping[str, type[Record]]) -> dict[str, Any]:
    """The object that a text is. Of the lists with these names (`a.b` is the list `b` of the object
    `a`) the elements are records already; whatever else stands there is plain. Raises `ValueError`
    (pydantic's errors are such) when it is no object, or an element no such record."""
    try:
        found, end = _Reader(text, lists).object("", _skip(text, 0))
    except RecursionError:
        raise ValueError("values are nested too deep") from None
    if _skip(text, end) != len(text):
        raise ValueError(f"something follows the document at character {end}")
    return found


class _Reader:
    def __init__(self, text: str, lists: Mapping[str, type[Record]]) -> None:
        self._text = text
        self._lists = lists
        self._inside = {
            name[: at + 1] for name in lists for at, letter in enumerate(name) if letter == "."
        }

    def object(self, path: str, at: int) -> tuple[dict[str, Any], int]:
        """The object that begins here, and where it ends."""
        text = self._text
        found: dict[str, Any] = {}
        at = self._past(at, "{")
        while not text.startswith("}", at):
            if found:
                at = self._past(at, ",")
            name, at = _decode(text, at)
            if not isinstance(name, str):
                raise ValueError(f"a name is missing at character {at}")
            at = self._past(_skip(text, at), ":")
            found[name], at = self._value(path + name, at)
            at = _skip(text, at)
        return found, at + 1

    def _value(self, path: str, at: int) -> tuple[Any, int]:
        record = self._lists.get(path)
        if record is not None and self._text.startswith("[", at):
            return self._rows(record, at)
        if f"{path}." in self._inside and self._text.startswith("{", at):
            return self.object(f"{path}.", at)
        return _decode(self._text, at)

    def _rows(self, record: type[Record], at: int) -> tuple[list[Record], int]:
        text = self._text
        rows: list[Record] = []
        at = self._past(at, "[")
        while not text.startswith("]", at):
            if rows:
                at = self._past(at, ",")
            value, at = _decode(text, at)
            rows.append(record.from_document(value))
            at = _skip(text, at)
        return rows, at + 1

    def _past(self, at: int, sign: str) -> int:
        """Behind a sign, and what is blank after it."""
        if not self._text.startswith(sign, at):
            raise ValueError(f"{sign!r} is missing at character {at}")
        return _skip(self._text, at + 1)


def _skip(text: str, at: int) -> int:
    blank = _SPACE.match(text, at)
    return at if blank is None else blank.end()

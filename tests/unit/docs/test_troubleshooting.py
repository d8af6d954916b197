"""docs/troubleshooting.md: its sentences are those of the code, and no kind of error is missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from agent import errors
from tests.support.product import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
ROW = re.compile(r"^\| (`.+?`) \| .*\|$", re.MULTILINE)
_SECTIONS_OF_SENTENCES = re.compile(r"^## (?!Kinds of error|Rights|Hints)", re.MULTILINE)


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def sentences() -> list[str]:
    """What stands in the first column of the tables of sentences."""
    found = []
    for section in re.split(r"(?=^## )", page(), flags=re.MULTILINE):
        if _SECTIONS_OF_SENTENCES.match(section):
            for cell in ROW.findall(section):
                found += re.findall(r"`([^`]+)`", cell)
    return found


def _said(node: ast.expr) -> str:
    """A text with `…` for what is only known when it is said."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _said(node.left) + _said(node.right)
    return "…"


@cache
def texts() -> frozenset[str]:
    """Every text of the program."""
    found = set()
    for path in [*(ROOT / "agent").rglob("*.py"), *(ROOT / "ctl").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found.add(_said(node))
    return frozenset(found)


def _pattern(sentence: str) -> re.Pattern[str]:
    """The page's sentence as it may be in the code: `…` is anything, and what the page writes out
    may be inserted there."""
    return re.compile(".*".join(re.escape(part) for part in sentence.split("…")), re.DOTALL)


KNOWN_WORDS = {"TIDELOG_SECRET_KEY_FILE": "…"}


@pytest.mark.parametrize("sentence", sentences())
def test_every_sentence_is_one_of_the_program(sentence: str) -> None:
    for word, inserted in KNOWN_WORDS.items():
        sentence = sentence.replace(word, inserted)
    longest = max(sentence.split("…"), key=len).strip(" :;,()")
    assert len(longest) > 5, f"too little to recognise: {sentence}"
    wanted = _pattern(sentence)
    if any(wanted.search(text) for text in texts()):
        return
    # Put together of several texts.
    for part in re.split("[…;]", sentence):
        assert any(part.strip() in text for text in texts()), f"nobody says {part!r}"


def _kinds(base: type[errors.TidelogError] = errors.TidelogError) -> list[type]:
    return [base, *(kind for below in base.__subclasses__() for kind in _kinds(below))]


def of_the_program() -> list[type[errors.TidelogError]]:
    branches = {
        errors.TidelogError,
        errors.Transient,
        errors.Permanent,
        errors.Superseded,
    }
    return [k for k in _kinds() if k.__module__ == "agent.errors" and k not in branches]


def test_every_kind_of_error_is_there() -> None:
    table = page().partition("\n## Kinds of error\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert named == {kind.__name__ for kind in of_the_program()}


def test_the_hints_are_those_of_the_kinds() -> None:
    table = page().partition("\n## Hints\n")[2]
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert told == {k.__name__: k.__dict__["hint"] for k in of_the_program() if "hint" in vars(k)}


def test_the_page_has_what_people_ask_most() -> None:
    assert len(sentences()) > 60
    assert Path(PAGE).stat().st_size < 20_000, "a page for 3 a.m. is no encyclopedia"

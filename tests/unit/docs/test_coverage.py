"""docs/storage/coverage.md says which test covers which row: every row stands in it, and what it
names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.product import ROOT

PAGE: Final = ROOT / "docs" / "storage" / "coverage.md"
LAST_ROW: Final = {"A": 39, "B": 26, "C": 34, "E": 18}
_ROWS: Final = re.compile(r"([A-Z])(\d+)(?:–\1(\d+))?")


def _named() -> set[str]:
    """What stands in code marks."""
    return set(re.findall(r"`([^`]+)`", PAGE.read_text(encoding="utf-8")))


def _tests() -> set[str]:
    """The names of all tests."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
    return found


@pytest.mark.parametrize("letter", LAST_ROW)
def test_every_row_of_the_checklist_is_there(letter: str) -> None:
    covered: set[int] = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| "):
            continue
        for kind, first, last in _ROWS.findall(line.split("|")[1]):
            if kind == letter:
                covered.update(range(int(first), int(last or first) + 1))
    assert set(range(1, LAST_ROW[letter] + 1)) - covered == set()


def test_every_test_that_is_named_exists() -> None:
    tests = _tests()
    patterns = [name for name in _named() if "…" in name]
    assert patterns
    lost = []
    for pattern in patterns:
        wanted = re.compile(".*".join(map(re.escape, pattern.split("…"))))
        if not any(wanted.search(name) for name in tests):
            lost.append(pattern)
    assert lost == []


def test_every_file_and_page_that_is_named_exists() -> None:
    files = [name for name in _named() if name.endswith(".py")]
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE.read_text(encoding="utf-8"))
    assert files
    assert links
    lost = [name for name in files if not (ROOT / "tests" / name).is_file()]
    lost += [link for link in links if not (PAGE.parent / Path(link)).exists()]
    assert lost == []

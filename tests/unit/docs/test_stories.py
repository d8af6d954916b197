"""docs/stories.md and the tests say the same: none is missing, renamed or told nowhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.product import ROOT

PAGE = ROOT / "docs/stories.md"
WANTED = {f"F{number}" for number in (*range(1, 13), 30)} | {
    "operator#2007",
    "operator#2317",
    "operator#1463",
    "PBM-1687",
}


def told() -> dict[str, set[str]]:
    """Tests by story, as the page has them."""
    found: dict[str, set[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        tests = set(re.findall(r"`(tests/\S+::\w+)`", line))
        if tests:
            for story in cells[0].split(", "):
                found.setdefault(story, set()).update(tests)
    return found


def marked() -> dict[str, set[str]]:
    """Tests by story, as their markers have them."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function, names in _stories(path):
            key = f"{path.relative_to(ROOT).as_posix()}::{function}"
            for name in names:
                found.setdefault(name, set()).add(key)
    return found


def _stories(path: Path) -> list[tuple[str, list[str]]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for one in node.decorator_list:
            if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.story":
                names = [a.value for a in one.args if isinstance(a, ast.Constant)]
                found.append((node.name, [str(name) for name in names]))
    return found


def test_every_story_is_told() -> None:
    assert set(told()) >= WANTED


def test_the_page_and_the_markers_name_the_same_tests() -> None:
    assert told() == marked()

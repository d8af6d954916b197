"""What the pages say of commands, flags, states, events and files is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from agent.log import EVENTS
from agent.wire.operations import State
from ctl.app import app
from tests.support import events_reference
from tests.support.product import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(ctl [^`]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
LATER = {"security.md", "format.md"}
"""Pages that others write."""


def commands(page: Path) -> list[str]:
    """Every `ctl` command of a page that is no template."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for block in BLOCK.findall(text) for line in block.splitlines()]
    found = [line for line in lines if re.match(r"(until )?ctl ", line)] + INLINE.findall(text)
    return [line for line in found if not re.search(r"[…|\[]| T( |$)|COMMAND", line)]


def own(page: Path) -> bool:
    return page.name != "cli.md"


CASES = [
    pytest.param(command, id=f"{page.name}: {command}")
    for page in PAGES
    if own(page)
    for command in dict.fromkeys(commands(page))
]


@pytest.mark.parametrize("command", CASES)
def test_every_command_is_one_that_ctl_takes(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if not words or words[0].startswith("-"):
        return
    context = click.Context(app, info_name="ctl")
    chosen: Any = app.get_command(context, words[0])
    assert chosen is not None, f"there is no {words[0]}"
    words = [word for word in words if word not in ("--help", "--file", "storage.yaml")]
    if len(words) > 1:  # else it is only named
        chosen.make_context(words[0], words[1:], parent=context)


def test_the_states_are_those_there_are() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("\n### States\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [str(state) for state in State]


def test_the_events_are_those_that_are_logged() -> None:
    text = events_reference.PAGE.read_text(encoding="utf-8")
    assert text == events_reference.page(text), "run: make docs"
    named = re.findall(r"`([a-z]+\.[a-z]+_[a-z_]+)`", text)
    assert set(named) <= set(EVENTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if Path(target).name not in LATER:
            assert (page.parent / target).exists(), target

"""What a person sees on a terminal: bars, questions, Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.integration.ctl.actor import Actor
from tests.support.ctl import Ctl
from tests.unit.ctl.world import backup

NAME = "2026-02-28T10:00:00Z"


class Terminal:
    """`ctl` on a terminal of 100 columns."""

    def __init__(self, ctl: Ctl) -> None:
        self._ctl = ctl
        self.children: list[pexpect.spawn[str]] = []

    def start(self, *arguments: str) -> pexpect.spawn[str]:
        """Begin a command."""
        program, *rest = self._ctl.command(*arguments, out=None)
        environment: Any = {**self._ctl.environment, "TERM": "xterm-256color", "COLUMNS": "100"}
        child = pexpect.spawn(
            program,
            rest,
            env=environment,
            dimensions=(30, 100),
            encoding="utf-8",
            timeout=20,
            preexec_fn=_as_in_a_shell,
        )
        self.children.append(child)
        return child


def _as_in_a_shell() -> None:
    """Tests that run in the background have Ctrl-C ignored, and what they start inherits it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
async def terminal(actor: Actor, ctl: Ctl, tmp_path: Path) -> Ctl:
    await actor.beat(settings_version=9)
    await asyncio.to_thread(ctl.configure_filesystem, tmp_path)
    return ctl


@pytest.fixture
def screen(terminal: Ctl) -> Iterator[Terminal]:
    found = Terminal(terminal)
    yield found
    for child in found.children:
        child.close(force=True)


async def _expect(child: pexpect.spawn[str], *patterns: str) -> str:
    """Wait for the patterns in order; all that was written until then, without colours."""
    text = ""
    for pattern in patterns:
        await asyncio.to_thread(child.expect, pattern)
        text += f"{child.before}{child.after}"
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


async def _end(child: pexpect.spawn[str]) -> int | None:
    await asyncio.to_thread(child.expect, pexpect.EOF)
    child.close()
    return child.exitstatus


async def test_a_bar_shows_bytes_documents_rate_and_what_is_left(
    actor: Actor, screen: Terminal
) -> None:
    child = screen.start("backup", "--wait")
    operation = await actor.lead(await actor.next_operation())
    for done in range(1, 9):
        await actor.progress(operation.id, done * 10, 100)
        await asyncio.sleep(0.3)
    shown = await _expect(child, r"[4-8]0\.0/100\.0 MiB", r"docs", r"/s ETA [0-9.]+ s")
    assert f"{actor.replset} reading" in shown
    assert "━" in shown
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= 100, lines
    await actor.publish(operation)
    text = await _expect(child, r"Consistent at [^\r\n]+")
    assert f"Backup {operation.name} done in" in text
    assert await _end(child) == 0


async def test_ctrl_c_leaves_the_operation_alone(actor: Actor, screen: Terminal) -> None:
    child = screen.start("backup", "--wait")
    operation = await actor.lead(await actor.next_operation())
    await actor.progress(operation.id, 10, 100)
    await _expect(child, r"10\.0/100\.0 MiB")
    child.sendintr()
    await _expect(child, rf"Error: interrupted; the backup {operation.name} goes on")
    assert await _end(child) == 130
    assert not (await actor.operations.get(operation.id)).cancel_requested


async def test_a_dead_lead_is_shown_below_the_bars(actor: Actor, screen: Terminal) -> None:
    child = screen.start("backup", "--wait")
    await actor.lead(await actor.next_operation(), ttl_s=1.0)
    await _expect(child, rf"the lead {actor.id} has lost its lease")
    child.sendintr()
    assert await _end(child) == 130


async def test_a_restore_asks_and_takes_no_for_an_answer(actor: Actor, screen: Terminal) -> None:
    await actor.catalog.publish_backup(backup(NAME))
    child = screen.start("restore", NAME)
    shown = await _expect(child, r"Restore\? \[y/N\]")
    assert "what is not in it will be dropped" in shown
    assert NAME in shown
    child.sendline("n")
    await _expect(child, "nothing was restored")
    assert await _end(child) == 0
    assert await actor.operations.active() == []


async def test_a_restore_goes_on_after_yes(actor: Actor, screen: Terminal) -> None:
    await actor.catalog.publish_backup(backup(NAME))
    child = screen.start("restore", NAME)
    await _expect(child, r"\[y/N\]")
    child.sendline("yes")
    await _expect(child, r"Restore [0-9TZ:-]+ requested")
    assert await _end(child) == 0


async def test_status_is_watched_until_interrupted(actor: Actor, screen: Terminal) -> None:
    child = screen.start("status", "--watch")
    await _expect(child, "Cluster:", r"\[P\]: tidelog-agent", "Cluster:", "Backups:")
    child.sendintr()
    assert await _end(child) == 130


async def test_logs_are_followed(actor: Actor, screen: Terminal) -> None:
    from agent.wire.events import Event

    child = screen.start("logs", "-f")
    await asyncio.sleep(1.5)
    facts = {"node": actor.id, "event": "backup.published", "severity": "I"}
    await actor.events.write([Event.model_validate(facts)])
    await _expect(child, r"backup\.published")
    child.sendintr()
    assert await _end(child) == 130

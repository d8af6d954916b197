"""What a worker that goes on tells of: kept and read again, each byte once."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from agent.operations.backup.resuming import tell_resumed
from agent.wire.operations import Kind, Operation, Part, Progress


class _Worked:
    """One part and what is written of it."""

    def __init__(self, bytes_done: int) -> None:
        self.part = Part(replset="rs0", progress=Progress(stage="reading", bytes_done=bytes_done))
        self.notes: list[str] = []

    async def resume(self, kept_bytes: int, *, is_read: bool = False) -> None:
        operation = Operation(
            id="1" * 24,
            kind=Kind.BACKUP,
            name="b",
            requested_at=datetime(2026, 11, 22, tzinfo=UTC),
            parts=(self.part,),
        )
        context: Any = SimpleNamespace(operation=operation, replset="rs0", record=self._record)
        await tell_resumed(context, Progress(bytes_done=kept_bytes), is_read=is_read)

    async def _record(self, fields: dict[str, Any], *, note: str, progress: Progress) -> None:
        result = {**self.part.result, **fields}
        self.part = self.part.model_copy(update={"result": result, "progress": progress})
        self.notes.append(note)


async def test_what_was_read_and_is_not_in_the_journal_is_told_of() -> None:
    worked = _Worked(bytes_done=100)
    await worked.resume(70)
    assert worked.notes == ["goes on from the journal: 70 bytes kept, 30 bytes read again"]
    assert worked.part.result == {"reread_bytes": 30}
    assert worked.part.progress == Progress(stage="reading", bytes_done=70)


async def test_a_worker_that_dies_before_it_reads_adds_nothing() -> None:
    worked = _Worked(bytes_done=100)
    await worked.resume(70)
    await worked.resume(75)
    await worked.resume(75)
    assert worked.part.result == {"reread_bytes": 30}


async def test_once_all_is_read_nothing_is_read_again() -> None:
    worked = _Worked(bytes_done=100)
    await worked.resume(90, is_read=True)
    assert worked.part.result == {"reread_bytes": 0}

"""What stays on the target while something of it is being dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.mongo.apply.target import Present
from agent.operations.restore import wiping
from agent.replay.scope import Scope


async def test_what_a_worker_before_is_having_dropped_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going = [Present(f"{name}.c", name.encode(), {}, ("_id_",)) for name in ("dying", "well")]
    there = list(going)
    waited: list[str] = []

    async def listed(_: Any) -> list[Present]:
        return list(there)

    async def kept(_: Any, gone: list[Present]) -> set[bytes]:
        return {one.uuid for one in gone}

    async def wait(_: Any, database: str, uuid: bytes) -> None:
        waited.append(database)
        there[:] = going[1:]

    monkeypatch.setattr(wiping, "collections", listed)
    monkeypatch.setattr(wiping, "kept", kept)
    monkeypatch.setattr(wiping, "wait_dropped", wait)
    noted: dict[str, Any] = {}
    keeper = SimpleNamespace(note=noted.update)
    job: Any = SimpleNamespace(node=None, scope=Scope(), keeper=keeper, check=lambda: None)
    await wiping.wipe(job)
    assert waited == ["dying", "well"]
    assert job.kept == {b"well"}
    assert noted == {"keeps": True}

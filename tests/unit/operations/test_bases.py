"""Which backup slicing begins at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.operations import bases
from agent.operations.bases import first_base
from agent.operations.context import Services
from agent.wire.optime import OpTime
from tests.unit.operations.repositories import REPLSET, moment


def backup(at: int, *, is_selective: bool = False, cluster: str = "c") -> Any:
    return SimpleNamespace(
        last_write=moment(at),
        cluster_id=cluster,
        is_selective=is_selective,
        replsets=(SimpleNamespace(replset=REPLSET),),
    )


async def begun_at(
    monkeypatch: pytest.MonkeyPatch, *known: Any, oldest: int = 1, touched: int | None = None
) -> int | None:
    async def backups() -> list[Any]:
        return [*known]

    async def touched_at(replset: str) -> OpTime | None:
        return None if touched is None else moment(touched)

    async def oldest_entry(node: object) -> OpTime:
        return moment(oldest)

    monkeypatch.setattr(bases, "oldest_entry", oldest_entry)
    services = SimpleNamespace(
        catalog=SimpleNamespace(backups=backups),
        runs=SimpleNamespace(touched_at=touched_at),
        node=SimpleNamespace(replset=REPLSET),
        cluster_id="c",
    )
    found = await first_base(cast(Services, services))
    return None if found is None else found.T


async def test_the_newest_backup_of_everything_is_carried_on_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [backup(10), backup(20), backup(30, is_selective=True), backup(40, cluster="d")]
    assert await begun_at(monkeypatch, *known) == 20
    assert await begun_at(monkeypatch, *known[2:]) is None


async def test_not_what_the_oplog_lacks_nor_what_a_restore_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [backup(10), backup(20)]
    assert await begun_at(monkeypatch, *known, oldest=20) is None
    assert await begun_at(monkeypatch, *known, touched=20) is None
    assert await begun_at(monkeypatch, *known, backup(21), touched=20) == 21

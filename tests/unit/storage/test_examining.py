"""A storage check names each right by itself, and leaves nothing behind."""

from __future__ import annotations

import pytest

from agent.errors import PermissionDenied
from agent.storage.base import Storage
from agent.storage.examining import examine
from agent.storage.memory import MemoryStorage
from agent.wire.storage_reports import Permission, StorageReport, Verdict
from tests.support.faulty_storage import FaultyStorage, Verb
from tests.support.manual_clock import ManualClock

DENIED = PermissionDenied("it is not allowed")


async def _verdicts(storage: Storage, measure_bytes: int = 0) -> dict[str, Verdict]:
    found = await examine(storage, ManualClock(), measure_bytes)
    return {permission.name: permission.verdict for permission in found.permissions}


async def test_all_is_well_and_nothing_stays() -> None:
    storage = await MemoryStorage.open()
    found = await examine(storage, ManualClock(), 3 << 20)
    assert {p.name: p.verdict for p in found.permissions} == dict.fromkeys(
        ("put", "list", "get", "range", "conditional put", "delete"), Verdict.YES
    )
    assert found.first_error is None
    assert found.write_bytes_s
    assert found.read_bytes_s
    assert storage.objects.bodies == {}


@pytest.mark.parametrize(
    ("verb", "refused"),
    [("list", {"list"}), ("get", {"get", "range"}), ("delete", {"delete"})],
)
async def test_what_is_denied_is_named_and_the_rest_is_tried(verb: Verb, refused: set[str]) -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    for call in range(4):
        faulty.fail(verb, DENIED, call=call + 1)
    found = await _verdicts(faulty)
    assert {name for name, verdict in found.items() if verdict is Verdict.NO} == refused
    assert len(found) == 6


async def test_without_the_right_to_write_the_rest_is_not_guessed() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.fail("put", DENIED, call=1)
    found = await _verdicts(faulty)
    assert found["put"] is Verdict.NO
    assert found["get"] is found["range"] is Verdict.UNKNOWN
    assert found["list"] is Verdict.YES


def test_what_is_not_needed_may_be_missing() -> None:
    def report(*, is_needed: bool) -> StorageReport:
        refused = Permission(name="x", verdict=Verdict.NO, is_needed=is_needed)
        return StorageReport(id="1", node="n", profile="main", permissions=(refused,))

    assert report(is_needed=False).is_ok
    assert not report(is_needed=True).is_ok

"""The marker: one repository, one owner, and a format that is known."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent.archive.layout import FORMAT_VERSION, MARKER
from agent.errors import IntegrityError, Refused, TidelogError, UnsupportedVersion
from agent.operations.repository import Marker, adopt, claim, read_marker
from agent.storage.base import put_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage

OURS, THEIRS = "a" * 24, "b" * 24


async def _storage(marker: Any = None) -> MemoryStorage:
    storage = await MemoryStorage.open(name="vault")
    if marker is not None:
        text = marker if isinstance(marker, bytes) else json.dumps(marker).encode()
        await put_bytes(storage, MARKER, text)
    return storage


async def test_an_empty_prefix_becomes_the_property_of_the_first() -> None:
    storage = await _storage()
    assert await read_marker(storage) is None
    made = await claim(storage, OURS)
    assert made.cluster_id == OURS
    assert made.format_version == FORMAT_VERSION
    assert await read_marker(storage) == made
    assert await claim(storage, OURS) == made, "a second claim writes nothing"


async def test_another_cluster_may_read_and_is_refused_writes() -> None:
    storage = await _storage()
    made = await claim(storage, THEIRS)
    with pytest.raises(Refused, match=f"memory://vault belongs to another cluster .*{THEIRS}"):
        await claim(storage, OURS)
    assert await read_marker(storage) == made


async def test_of_two_clusters_that_claim_at_once_one_wins_and_the_other_is_told() -> None:
    for _ in range(20):
        objects = MemoryObjects()
        outcomes: list[Marker | Refused] = []

        async def try_to(cluster: str, objects: MemoryObjects, outcomes: list[Any]) -> None:
            storage = await MemoryStorage.open(objects)
            try:
                outcomes.append(await claim(storage, cluster))
            except Refused as error:
                outcomes.append(error)

        async with asyncio.TaskGroup() as group:
            for cluster in (OURS, THEIRS):
                group.create_task(try_to(cluster, objects, outcomes))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Marker", "Refused"]


async def test_two_agents_of_one_cluster_claim_one_repository() -> None:
    objects = MemoryObjects()
    made: list[Marker] = []

    async def try_to() -> None:
        made.append(await claim(await MemoryStorage.open(objects), OURS))

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(try_to())
    assert len({marker.repository_id for marker in made}) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"repository_id": "r", "cluster_id": OURS},
        {"owner": {"shape": "that nobody knows yet"}, "encryption": ["also", "other"]},
    ],
)
async def test_a_newer_format_is_refused_whatever_else_its_marker_says(
    fields: dict[str, Any],
) -> None:
    storage = await _storage({"format_version": FORMAT_VERSION + 1, **fields})
    with pytest.raises(UnsupportedVersion, match=f"format version {FORMAT_VERSION + 1}"):
        await claim(storage, OURS)


async def test_fields_that_a_newer_version_added_are_ignored() -> None:
    marker = {"repository_id": "r", "cluster_id": OURS, "format_version": 1, "news": {"x": 1}}
    assert (await claim(await _storage(marker), OURS)).repository_id == "r"


@pytest.mark.parametrize(
    "marker",
    [b"", b"{", b"[]", b"\xff", {}, {"format_version": "x"}, {"format_version": 1}, [1]],
    ids=repr,
)
async def test_a_marker_that_is_none_is_named(marker: Any) -> None:
    storage = await _storage(marker)
    with pytest.raises(TidelogError, match=r"tidelog\.json on memory://vault") as caught:
        await read_marker(storage)
    assert type(caught.value) is IntegrityError


async def test_an_adoption_changes_the_owner_and_no_object() -> None:
    storage = await _storage()
    made = await claim(storage, THEIRS)
    before = dict(storage.objects.bodies)
    assert await adopt(storage, OURS, THEIRS) == (made.repository_id, THEIRS)
    assert {key: storage.objects.bodies[key] for key in before} == before
    assert (await claim(storage, OURS)).repository_id == made.repository_id
    with pytest.raises(Refused, match="belongs to another cluster"):
        await claim(storage, THEIRS)
    assert await adopt(storage, OURS) == (made.repository_id, OURS), "again changes nothing"
    await adopt(storage, THEIRS, OURS)
    assert (await claim(storage, THEIRS)).cluster_id == THEIRS
    assert len(storage.objects.bodies) == 3


async def test_an_owner_that_nobody_was_shown_is_not_replaced() -> None:
    storage = await _storage()
    await claim(storage, THEIRS)
    with pytest.raises(Refused, match="by now"):
        await adopt(storage, OURS, "c" * 24)
    assert (await claim(storage, THEIRS)).cluster_id == THEIRS


async def test_of_two_clusters_that_adopt_at_once_one_is_told() -> None:
    storage = await _storage()
    await claim(storage, "c" * 24)
    outcomes: list[object] = []

    async def take(cluster: str) -> None:
        try:
            outcomes.append(await adopt(storage, cluster, "c" * 24))
        except Refused as error:
            outcomes.append(error)

    async with asyncio.TaskGroup() as group:
        for cluster in (OURS, THEIRS):
            group.create_task(take(cluster))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Refused", "tuple"]

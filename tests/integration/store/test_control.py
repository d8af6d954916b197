"""Finding the control database, its schema, and the smaller repositories in it."""

from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime

import pytest

from agent.errors import (
    ConfigError,
    Conflict,
    NotFound,
    StoreUnavailable,
    UnsupportedVersion,
)
from agent.store.catalog import Catalog
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, open_control
from agent.store.events import EventLog
from agent.store.node_registry import NodeRegistry
from agent.store.schema import ensure_schema
from agent.store.settings_store import SettingsStore
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.collections import AGENTS, CAPPED_BYTES, COMMANDS, CONFIG, EVENTS
from agent.wire.events import Event, EventFilter
from agent.wire.nodes import NodeStatus, Role
from agent.wire.optime import OpTime
from agent.wire.settings import Settings, load_yaml
from tests.support.mongod import Auth, Member, ReplicaSet, SetOptions


async def test_any_member_leads_to_the_control_database(three_nodes: ReplicaSet) -> None:
    for node in three_nodes.data_nodes:
        control = await open_control(three_nodes.uri_of(node), app_name="tests")
        try:
            await ensure_schema(control)
            assert (control.replset, control.member) == ("three", "three")
        finally:
            await control.aclose()


async def test_a_dead_host_in_the_list_is_passed_over(one_node: ReplicaSet) -> None:
    uri = one_node.uri().replace("mongodb://", "mongodb://127.0.0.1:1,")
    control = await open_control(uri, app_name="tests", timeout_s=10)
    await control.aclose()


async def test_a_host_that_recovers_is_passed_over(three_nodes: ReplicaSet) -> None:
    recovering, other = three_nodes.secondaries()
    direct = three_nodes.connect(three_nodes.uri_of(recovering))
    direct.admin.command({"replSetMaintenance": 1})
    try:
        uri = f"mongodb://{recovering.host},{other.host}/"
        control = await open_control(uri, app_name="tests", timeout_s=10)
        await control.aclose()
    finally:
        direct.admin.command({"replSetMaintenance": 0})
        await asyncio.to_thread(three_nodes.wait_healthy)


async def test_nobody_there_is_said_within_the_deadline() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await open_control("mongodb://127.0.0.1:1/", app_name="tests", timeout_s=1.0)


async def test_a_cluster_is_known_by_an_id(control: Control, one_node: ReplicaSet) -> None:
    config = one_node.client().admin.command("replSetGetConfig")["config"]
    assert await control.read_cluster_id() == str(config["settings"]["replicaSetId"])


async def test_the_schema_is_made_once_by_many(one_node: ReplicaSet) -> None:
    control = await open_control(one_node.uri(), app_name="tests")
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(ensure_schema(control))
        names = one_node.client().admin.list_collections()
        capped = {row["name"] for row in names if row["options"].get("capped")}
        assert capped == set(CAPPED_BYTES)
    finally:
        await control.aclose()


async def test_what_was_dropped_or_made_uncapped_is_put_right(
    control: Control, one_node: ReplicaSet
) -> None:
    admin = one_node.client().admin
    admin.drop_collection(COMMANDS)
    admin.drop_collection(EVENTS)
    await CommandQueue(control).wake("early")  # makes it, uncapped
    await ensure_schema(control)
    capped = {row["name"] for row in admin.list_collections() if row["options"].get("capped")}
    assert capped == set(CAPPED_BYTES)


async def test_a_newer_schema_is_refused(control: Control, one_node: ReplicaSet) -> None:
    one_node.client().admin[CONFIG].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    with pytest.raises(UnsupportedVersion, match="99"):
        await ensure_schema(control)


async def test_wake_ups_arrive_at_once(control: Control) -> None:
    queue, arrived = CommandQueue(control), asyncio.Queue[str](maxsize=64)

    async def listen() -> None:
        async for command in queue.watch():
            if command is not None and command.get("op_id"):
                arrived.put_nowait(command["op_id"])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        await asyncio.sleep(0.5)
        for number in range(5):
            await queue.wake(f"op {number}")
            async with asyncio.timeout(1):
                assert await arrived.get() == f"op {number}"
        task.cancel()


async def test_a_broken_watch_is_begun_anew(control: Control, one_node: ReplicaSet) -> None:
    queue, arrived = CommandQueue(control), asyncio.Event()

    async def listen() -> None:
        async for command in queue.watch():
            if command is not None and command.get("op_id") == "after":
                arrived.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        await asyncio.sleep(0.3)
        one_node.client().admin.drop_collection(COMMANDS)
        await ensure_schema(control)
        await queue.wake("after")
        async with asyncio.timeout(10):
            await arrived.wait()
        task.cancel()


async def test_a_watch_ends_at_once_when_it_is_cancelled(control: Control) -> None:
    async def listen() -> None:
        async for _ in CommandQueue(control).watch():
            pass

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        await asyncio.sleep(0.3)
        task.cancel()


async def test_settings_are_replaced_by_who_knows_their_version(control: Control) -> None:
    store = SettingsStore(control)
    assert await store.read() == (Settings(), 0)
    first = load_yaml("backup: {priority: {db1.example.com:27017: 2}}")
    assert await store.replace(first, 0) == 1
    assert await store.read() == (first, 1)
    for stale in (0, 5):
        with pytest.raises(Conflict, match="changed by somebody else"):
            await store.replace(Settings(), stale)
    second = load_yaml("pitr: {enabled: true}")
    assert await store.replace(second, 1) == 2
    assert await store.read() == (second, 2), "nothing of the old ones stays"


async def test_of_many_who_replace_one_succeeds(control: Control) -> None:
    store = SettingsStore(control)

    async def replace() -> bool:
        try:
            await store.replace(Settings(), 0)
        except Conflict:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(replace()) for _ in range(10)]
    assert sum(task.result() for task in tasks) == 1


def status(host: str = "a:1", **fields: object) -> NodeStatus:
    return NodeStatus.from_document(
        {
            "_id": f"rs0/{host}",
            "replset": "rs0",
            "host": host,
            "role": Role.SECONDARY,
            "agent_version": "1",
            "mongodb_version": "6",
            "pid": 1,
            **fields,
        }
    )


async def test_heartbeats_are_counted_by_the_server(control: Control, one_node: ReplicaSet) -> None:
    registry = NodeRegistry(control)
    await registry.heartbeat(status("b:1", storage_error="full"))
    await registry.heartbeat(status("a:1", age_s=999.0))
    found = await registry.live()
    assert [node.host for node in found] == ["a:1", "b:1"]
    assert all(0 <= node.age_s < 5 for node in found)
    one_node.client().admin[AGENTS].update_one(
        {"_id": "rs0/a:1"}, [{"$set": {"heartbeat_at": {"$subtract": ["$$NOW", 60_000]}}}]
    )
    assert [node.host for node in await registry.live()] == ["b:1"]
    assert [round(node.age_s) for node in await registry.all()] == [60, 0]
    await registry.heartbeat(status("b:1"))
    assert (await registry.live())[0].storage_error is None, "what is no longer said is gone"
    await registry.say_goodbye("rs0/b:1")
    assert await registry.live() == []


async def test_the_start_of_an_agent_is_the_start_of_its_process(control: Control) -> None:
    registry = NodeRegistry(control)
    starts = []
    for pid in (1, 1, 2):
        await registry.heartbeat(status(pid=pid))
        starts.append((await registry.all())[0].started_at)
        await asyncio.sleep(0.01)
    assert starts[0] == starts[1]
    assert starts[1] != starts[2]


def backup(name: str = "b1", op_id: str = "1", at: int = 100) -> Backup:
    part = ReplsetPart(
        replset="rs0", manifest_key="k", manifest_sha256="d", manifest_size_bytes=1, node="n",
        first_write=OpTime(T=at, I=1), read_end=OpTime(T=at, I=2), collections=1, documents=1,
        objects=1, size_bytes=1, size_uncompressed_bytes=1,
    )  # fmt: skip
    return Backup(
        id=name, op_id=op_id, format_version=1, repository_id="r", cluster_id="c",
        mongodb_version="6", fcv="6.0", tidelog_version="1", first_write=OpTime(T=at, I=1),
        last_write=OpTime(T=at, I=2), started_at=datetime(2026, 1, 1, tzinfo=UTC),
        compression="zstd", replsets=(part,), size_bytes=1, size_uncompressed_bytes=1,
    )  # fmt: skip


async def test_a_backup_is_published_once(control: Control) -> None:
    catalog = Catalog(control)
    for _ in range(2):
        await catalog.publish_backup(backup())
    with pytest.raises(Conflict, match="another backup named b1"):
        await catalog.publish_backup(backup(op_id="2"))
    await catalog.publish_backup(backup("b0", at=50))
    assert [one.id for one in await catalog.backups()] == ["b0", "b1"]
    assert await catalog.backup("b1") == backup()
    assert await catalog.withdraw_backup("b1")
    assert not await catalog.withdraw_backup("b1")
    with pytest.raises(NotFound):
        await catalog.backup("b1")


async def test_a_restore_is_recorded_in_place_of_what_was_recorded_before(
    control: Control,
) -> None:
    catalog = Catalog(control)
    for state in ("running", "done"):
        await catalog.save_restore({"_id": "r1", "state": state})
    assert await catalog.restore("r1") == {"_id": "r1", "state": "done"}
    assert len(await catalog.restores()) == 1
    with pytest.raises(NotFound):
        await catalog.restore("r2")


async def test_events_are_kept_in_order_at_the_servers_time(control: Control) -> None:
    log = EventLog(control)
    ages = [5.0, 2.5, 0.0]
    await log.write([Event(event=f"e{n}", age_s=age, severity="I") for n, age in enumerate(ages)])
    found = await log.tail()
    assert [event.event for event in found] == ["e0", "e1", "e2"]
    spans = [(found[2].at - event.at).total_seconds() for event in found]  # type: ignore[operator]
    assert spans == pytest.approx(ages, abs=0.2)


async def test_events_are_found_by_what_people_ask(control: Control) -> None:
    log = EventLog(control)
    await log.write(
        [
            Event(event="debug", severity="D", node="rs0/a:1", replset="rs0"),
            Event(event="led", node="rs0/a:1", replset="rs0", op_id="1", kind="backup", name="b"),
            Event(event="bad", severity="E", node="rs1/b:1", replset="rs1"),
        ]
    )

    async def names(**chosen: str) -> list[str]:
        return [event.event for event in await log.tail(EventFilter.from_document(chosen))]

    assert await names() == ["led", "bad"]
    assert await names(severity="D") == ["debug", "led", "bad"]
    assert await names(severity="W") == ["bad"]
    assert await names(replset="rs1") == ["bad"]
    assert await names(node="rs0/a:1") == ["led"]
    assert await names(op_id="1", kind="backup", name="b") == ["led"]
    assert [event.event for event in await log.tail(limit=1)] == ["bad"]


async def test_events_can_be_followed_from_now_on(control: Control) -> None:
    log = EventLog(control)
    await log.write([Event(event="before")])
    seen: asyncio.Queue[str] = asyncio.Queue(maxsize=64)

    async def follow() -> None:
        async for event in log.follow(EventFilter(severity="I")):
            await seen.put(event.event)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await asyncio.sleep(0.5)
        await log.write([Event(event="quiet", severity="D"), Event(event="after")])
        async with asyncio.timeout(5):
            assert await seen.get() == "after"
        task.cancel()


async def test_an_empty_log_can_be_followed(control: Control) -> None:
    log, seen = EventLog(control), asyncio.Event()

    async def follow() -> None:
        async for _ in log.follow():
            seen.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await asyncio.sleep(0.2)
        await log.write([Event(event="first")])
        async with asyncio.timeout(5):
            await seen.wait()
        task.cancel()


@pytest.mark.parametrize("uri", ["mongodb+srv://x.example.com/", "nonsense"])
async def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        await open_control(uri, app_name="tests")


async def test_an_arbiter_is_told_from_a_wrong_password(mongod: object) -> None:
    options = SetOptions(name="arb", members=(Member(), Member(arbiter=True)), auth=Auth())
    async with ReplicaSet(options) as replset:
        arbiter = next(node for node in replset.nodes if not node.holds_data)
        with pytest.raises(ConfigError, match="is an arbiter"):
            await open_control(replset.uri_of(arbiter), app_name="tests")
        control = await open_control(replset.uri_of(replset.data_nodes[0]), app_name="tests")
        await control.aclose()
        wrong = replset.uri_of(replset.data_nodes[0]).replace("s3cret", "hunter2")
        with pytest.raises(ConfigError, match="login was refused") as caught:
            await open_control(wrong, app_name="tests")
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_shard_leads_to_its_config_servers(one_node: ReplicaSet, mongod: object) -> None:
    async with ReplicaSet(SetOptions(name="cfg")) as config:
        identity = {
            "_id": "shardIdentity",
            "shardName": "one",
            "configsvrConnectionString": f"cfg/{config.data_nodes[0].host}",
        }
        versions = one_node.client().admin["system.version"]
        versions.insert_one(identity)
        try:
            control = await open_control(one_node.uri(), app_name="tests")
            assert (control.replset, control.member) == ("cfg", "one")
            await ensure_schema(control)
            await control.aclose()
        finally:
            versions.delete_one({"_id": "shardIdentity"})
        assert config.client().admin[CONFIG].count_documents({}) == 1


async def test_credentials_and_tls_are_used_on_the_whole_way(mongod: object) -> None:
    async with ReplicaSet(SetOptions(name="tls", auth=Auth(), tls=True)) as replset:
        control = await open_control(
            replset.uri_of(replset.data_nodes[0]), app_name="tests", timeout_s=20
        )
        await ensure_schema(control)
        await control.aclose()

"""Every verb as a process against a real control database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.wire.events import Event
from agent.wire.operations import State
from ctl.follow import POLL_EVERY_S
from tests.integration.ctl.actor import Actor
from tests.support.ctl import Ctl, CtlResult
from tests.support.mongod import ReplicaSet
from tests.unit.ctl.world import backup


@pytest.fixture
async def configured(actor: Actor, ctl: Ctl, tmp_path: Path) -> Ctl:
    await actor.beat(settings_version=9)
    await asyncio.to_thread(ctl.configure_filesystem, tmp_path)
    return ctl


async def _start(ctl: Ctl, *arguments: str) -> asyncio.Task[CtlResult]:
    return asyncio.get_running_loop().create_task(asyncio.to_thread(ctl.run, *arguments))


def test_a_cluster_without_agents_is_told_as_such(ctl: Ctl) -> None:
    status = ctl.ok("status")
    (replset,) = status["cluster"]
    assert [node["agent"] for node in replset["nodes"]] == [None]
    nothing = {"on": False, "ranges": [], "gaps": [], "lag_s": None, "error": None}
    assert ctl.ok("list") == {"snapshots": [], "pitr": nothing}
    assert ctl.ok("config") == {}
    assert ctl.ok("logs") == []
    assert "no storage is configured" in ctl.fails(3, "backup")


async def test_settings_are_written_checked_and_read(
    actor: Actor, ctl: Ctl, tmp_path: Path
) -> None:
    await actor.beat(settings_version=9)
    shown = await asyncio.to_thread(ctl.configure_filesystem, tmp_path)
    assert shown["storage"]["filesystem"]["path"] == str(tmp_path)
    answer = await asyncio.to_thread(ctl.ok, "config", "storage.type")
    assert answer == {"key": "storage.type", "value": "filesystem"}
    whole = await asyncio.to_thread(
        lambda: ctl.run("config", "--file", "-", stdin="pitr: {enabled: true}")
    )
    assert whole.value == {"pitr": {"enabled": True}}


async def test_a_backup_from_the_command_to_its_description(actor: Actor, configured: Ctl) -> None:
    waiting = await _start(configured, "backup", "--wait")
    operation = await actor.lead(await actor.next_operation())
    await actor.progress(operation.id, 3, 10)
    await asyncio.sleep(4 * POLL_EVERY_S)  # long enough for the one that waits to see it
    running: Any = await asyncio.to_thread(configured.ok, "status", "-s", "running")
    assert running["running"][0]["progress"]["bytes_done"] == 3 << 20
    refused = await asyncio.to_thread(configured.fails, 3, "backup")
    assert f"another operation in progress: backup {operation.name} ({operation.id})" in refused
    await actor.publish(operation)
    result = await waiting
    assert result.status == 0, str(result)
    assert result.value["name"] == operation.name
    assert result.value["size"] == 12 << 20
    assert "rs reading" in result.stderr or "reading" in result.stderr
    listed = await asyncio.to_thread(configured.ok, "list")
    assert [item["name"] for item in listed["snapshots"]] == [operation.name]
    described = await asyncio.to_thread(
        configured.ok, "describe-backup", operation.name, "--with-collections"
    )
    found = {entry["name"]: entry.get("collections") for entry in described["replsets"]}
    assert found[actor.replset] == [{"ns": "shop.orders", "documents": 7}]


async def test_a_failed_operation_is_status_1_with_its_cause(actor: Actor, configured: Ctl) -> None:
    waiting = await _start(configured, "backup", "--wait")
    operation = await actor.lead(await actor.next_operation())
    await actor.fail(operation, "StorageFull", "no space left on /backups")
    result = await waiting
    assert result.status == 1
    assert result.value["error"].endswith("no space left on /backups")
    described = await asyncio.to_thread(configured.ok, "describe-backup", operation.name)
    assert described["error"]["type"] == "StorageFull"


async def test_wait_time_runs_out_and_the_operation_goes_on(actor: Actor, configured: Ctl) -> None:
    result = await asyncio.to_thread(configured.run, "backup", "--wait-time", "1s")
    assert result.status == 6, str(result)
    (operation,) = await actor.operations.active()
    assert operation.state is State.REQUESTED


async def test_a_lead_that_is_gone_is_noticed(actor: Actor, configured: Ctl) -> None:
    waiting = await _start(configured, "backup", "--wait-time", "9s")
    await actor.lead(await actor.next_operation(), ttl_s=1.0)
    result = await waiting
    assert result.status == 6, str(result)
    assert f"the lead {actor.id} has lost its lease; another agent takes over" in result.stderr


async def test_cancel_waits_for_the_agents(actor: Actor, configured: Ctl) -> None:
    await asyncio.to_thread(configured.ok, "backup")
    operation = await actor.lead(await actor.next_operation())
    waiting = await _start(configured, "cancel-backup", "--wait")

    async def asked() -> bool:
        return (await actor.operations.get(operation.id)).cancel_requested

    from tests.support.eventually import eventually_async

    await eventually_async(asked)
    await actor.cancel(operation)
    result = await waiting
    assert result.status == 0, str(result)
    assert result.value["status"] == "cancelled"
    assert "no backup is running" in await asyncio.to_thread(configured.fails, 4, "cancel-backup")


async def test_a_restore_shows_asks_and_is_refused_in_the_dark(
    actor: Actor, configured: Ctl
) -> None:
    name = "2026-02-28T10:00:00Z"
    await actor.catalog.publish_backup(backup(name))
    assert "no terminal" in await asyncio.to_thread(configured.fails, 3, "restore", name)
    missing = await asyncio.to_thread(configured.run, "restore", "2026-02-28T10:00:09Z", "-y")
    assert missing.status == 4
    assert name in missing.value["hint"]
    started = await asyncio.to_thread(configured.ok, "restore", name, "-y")
    assert started["backup"] == name
    busy = await asyncio.to_thread(configured.fails, 3, "restore", name, "-y")
    assert "another operation in progress: restore" in busy
    (shown,) = await asyncio.to_thread(configured.ok, "list", "--restore")
    assert shown["name"] == started["name"]
    described = await asyncio.to_thread(configured.ok, "describe-restore", started["name"])
    assert described["spec"]["backup"] == name


async def test_deletion_names_what_goes(actor: Actor, configured: Ctl) -> None:
    for name in ("2026-01-01T10:00:00Z", "2026-02-01T10:00:00Z"):
        await actor.catalog.publish_backup(backup(name))
    flags = ("delete-backup", "--older-than", "2026-01-15")
    assert "no terminal" in await asyncio.to_thread(configured.fails, 3, *flags)
    planned = await asyncio.to_thread(configured.ok, *flags, "--dry-run")
    assert [item["name"] for item in planned["deleted"]] == ["2026-01-01T10:00:00Z"]
    assert await actor.operations.active() == []
    done = await asyncio.to_thread(configured.ok, *flags, "-y")
    assert done["op_id"] == (await actor.operations.active())[0].id


async def test_logs_are_filtered_by_the_server(actor: Actor, ctl: Ctl) -> None:
    facts = {"node": actor.id, "replset": actor.replset, "kind": "backup", "name": "b1"}
    await actor.events.write(
        [
            Event.model_validate({**facts, "event": "backup.published", "severity": severity})
            for severity in "IWE"
        ]
    )
    everything = await asyncio.to_thread(ctl.ok, "logs", "-e", "backup/b1")
    assert [event["s"] for event in everything] == ["I", "W", "E"]
    grave = await asyncio.to_thread(ctl.ok, "logs", "-s", "E", "-n", actor.id)
    assert [event["msg"] for event in grave] == ["backup.published"]
    assert await asyncio.to_thread(ctl.ok, "logs", "-n", "other") == []


async def test_a_newer_control_database_is_refused(
    actor: Actor, ctl: Ctl, one_node: ReplicaSet
) -> None:
    schema = one_node.client().admin["tidelogConfig"]
    schema.update_one({"_id": "schema"}, {"$set": {"version": 99}})
    assert "schema version 99" in await asyncio.to_thread(ctl.fails, 3, "list")


def test_nobody_answers() -> None:
    nobody = Ctl("mongodb://me:s3cret@127.0.0.1:1/")
    result = nobody.run("status")
    assert result.status == 5
    assert "s3cret" not in result.stdout + result.stderr


@pytest.mark.parametrize("uri", ["http://x", "mongodb+srv://x", "mongodb://me:p@ss@h:1/"])
def test_a_wrong_address_is_usage(uri: str) -> None:
    result = Ctl(uri).run("status")
    assert result.status == 2
    assert "p@ss" not in result.stderr
    assert result.value["hint"]

"""Proofs and exports of a sharded cluster: every replica set in a scratch server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.dumps import read_dump
from tests.support.mongod import ShardedCluster, find_mongod
from tests.support.sharded_scene import furnish, wait_covered
from tests.support.transfers import Transfers, check_moment, check_rows, moment_now

pytestmark = pytest.mark.timeout(600)

LONG_S = 180.0


@pytest.fixture
def ctl(sharded: ShardedCluster, tmp_path: Path) -> Iterator[Ctl]:
    """Knows a member of a shard only. Only the agent of the other shard has room for scratch
    servers: neither that of the config servers, nor that of the shard asked."""
    for name in ("scratch", "exports", "store"):
        (tmp_path / name).mkdir()
    extra = {
        "TIDELOG_VERIFY__SCRATCHDIR": str(tmp_path / "scratch"),
        "TIDELOG_VERIFY__MONGOD": str(find_mongod()),
        "TIDELOG_EXPORT__DIRECTORY": str(tmp_path / "exports"),
    }
    others = [one for one in sharded.sets if one is not sharded.shards["s0"]]
    with (
        Agents(*others, lead=sharded.config),
        Agents(sharded.shards["s0"], lead=sharded.config, extra=extra),
    ):
        found = Ctl(sharded.shards["s1"].uri())
        found.configure_filesystem(tmp_path / "store")
        yield found
    assert list((tmp_path / "scratch").iterdir()) == []


def scattered(cluster: ShardedCluster) -> None:
    """A collection of which the donor of a range keeps its copies, as orphans."""
    cluster.create_database("late", "s0")
    cluster.shard_collection("late.d", {"k": 1})
    cluster.client_of("s0")["late"]["d"].insert_many([{"_id": n, "k": n} for n in range(100)])
    cluster.client_of("s0")["late"]["d"].create_index([("v", 1)], name="v")
    cluster.hold_range_deletions("s0", on=True)
    cluster.move_range("late.d", "s1", {"k": 40}, {"k": 60})


def hashes(cluster: ShardedCluster, *databases: str) -> dict[str, dict[str, str]]:
    """`dbHash` of the live data, by replica set."""
    return {
        one.name: {name: one.client()[name].command("dbHash")["md5"] for name in databases}
        for one in cluster.shards.values()
    }


def proved(done: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The same of a proof."""
    return {share["replset"]: share["hashes"] for share in done["shares"]}


def test_a_backup_of_shards_is_proved_at_its_end_and_later(
    sharded: ShardedCluster, ctl: Ctl, tmp_path: Path
) -> None:
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanMin=0.03")
    furnish(sharded)
    transfers = Transfers(sharded, accounts=10, threads=3, pause_s=0.01)
    transfers.create()
    scattered(sharded)
    with transfers:
        transfers.wait_for(5)
        backup = ctl.ok("backup", "--wait", within_s=LONG_S)
        transfers.wait_for(20)
        with transfers.quiesced():
            moment = max(moment_now(sharded.client_of(name)) for name in ("config", "s0", "s1"))
            rows = owned(sharded)
            live = hashes(sharded, "bank", "shop")
    sharded.hold_range_deletions("s0", on=False)
    name, base = backup["name"], (backup["last_write"]["T"], backup["last_write"]["I"])
    wait_covered(ctl, moment)
    at = ("--time", f"{moment[0]},{moment[1]}")
    done = ctl.ok("verify", name, "--restore", *at, "--wait", within_s=LONG_S)
    assert (done["level"], done["harmed"]) == ("proved", 0)
    assert [share["replset"] for share in done["shares"]] == ["cfg", "rs-a", "rs-b"]
    found = proved(done)
    for replset, of_shard in live.items():
        assert {name: found[replset][name] for name in of_shard} == of_shard
    assert done["recovery_s"] == max(share["recovery_s"] for share in done["shares"]) > 0
    assert done["documents"] == sum(share["documents"] for share in done["shares"])
    (listed,) = ctl.ok("list")["snapshots"]
    assert listed["proved"]["recovery_s"] == done["recovery_s"]
    assert "PROVED in" in ctl.run("list", out=None).stdout
    exported = ctl.ok("export", name, "then", *at, "--wait", within_s=LONG_S)
    check_dump(tmp_path / "exports" / "then", exported, rows)
    ends = sorted(one.acknowledged_at for one in transfers.done if one.acknowledged_at)
    amidst = next((at[0], at[1] - 1) for at in ends if base < at < moment and at[1] > 1)
    bank = ("--time", f"{amidst[0]},{amidst[1]}", "--ns", "bank.*")
    ctl.ok("export", name, "amidst", *bank, "--wait", within_s=LONG_S)
    books = {one.name: one.documents for one in read_dump(tmp_path / "exports" / "amidst")}
    assert set(books) == {"accounts", "entries"}
    present = check_rows(books["accounts"], books["entries"])
    check_moment(present, transfers.done, amidst)


def check_dump(directory: Path, exported: dict[str, Any], rows: dict[str, list[Any]]) -> None:
    """Each collection once, with what every shard owns of it and nothing else."""
    found = {f"{one.database}.{one.name}": one for one in read_dump(directory)}
    data = {ns: one for ns, one in found.items() if one.database != "admin"}
    assert set(data) == {ns.replace("system.buckets.", "") for ns in rows}
    assert exported["collections"] == len(found)
    for ns, documents in rows.items():
        of_dump = data[ns.replace("system.buckets.", "")].documents
        assert sorted(map(repr, of_dump)) == sorted(map(repr, documents)), ns
    orphans = found["late.d"].documents
    assert sorted(row["k"] for row in orphans) == list(range(100)), "a range lies on both shards"
    assert {index["name"] for index in found["late.d"].metadata["indexes"]} == {"_id_", "k_1", "v"}
    assert found["shop.weather"].metadata["type"] == "timeseries"
    assert {one["ns"]: (one["key"], one["unique"]) for one in exported["sharded"]} == {
        "bank.accounts": ('{"_id": 1}', False),
        "bank.entries": ('{"account": 1}', False),
        "late.d": ('{"k": 1}', False),
        "shop.again": ('{"k": 1}', False),
        "shop.gone": ('{"k": 1}', False),
        "shop.hashed": ('{"k": "hashed"}', False),
        "shop.refined": ('{"k": 1}', False),
        "shop.weather": ('{"m": 1}', False),
    }
    assert any("20 orphaned documents" in text for text in exported["warnings"])


def owned(cluster: ShardedCluster) -> dict[str, list[Any]]:
    """The documents of every collection as a router would show them: what is on both shards is on
    the donor an orphan."""
    found: dict[str, list[Any]] = {}
    for database in ("bank", "late", "shop"):
        for name in cluster.shards:
            of_shard = cluster.client_of(name)[database]
            for entry in of_shard.list_collections(filter={"type": "collection"}):
                if entry["name"] == "system.views":
                    continue
                rows = found.setdefault(f"{database}.{entry['name']}", [])
                rows += [row for row in of_shard[entry["name"]].find() if row not in rows]
    return found


def test_what_is_wrong_with_a_shard_is_named(
    sharded: ShardedCluster, ctl: Ctl, tmp_path: Path
) -> None:
    furnish(sharded)
    scattered(sharded)
    name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    sharded.hold_range_deletions("s0", on=False)
    done = ctl.ok("verify", name, "--restore", "--wait", within_s=LONG_S)
    assert done["harmed"] == 0, "counts are the manifest's, less the orphans"
    chunk = next((tmp_path / "store").glob("**/chunks/rs-b/bundles/*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    bad = ctl.run("verify", name, "--restore", "--wait", within_s=LONG_S)
    assert bad.status == 1, str(bad)
    (problem,) = bad.value["problems"]
    assert problem.startswith("rs-b: ")
    assert "chunks/rs-b" in problem
    assert [share["replset"] for share in bad.value["shares"]] == ["cfg", "rs-a"]
    assert bad.value.get("recovery_s") is None

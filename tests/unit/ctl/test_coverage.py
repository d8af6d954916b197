"""What the archived oplog covers, as people and scripts see it."""

from __future__ import annotations

from agent.wire.optime import OpTime
from agent.wire.timelines import Gap, GapCause, Run
from agent.wire.topology import topology_of
from tests.unit.ctl.world import NOW, Ctl, backup

BACKUP = backup()
BASE = BACKUP.last_write
END = OpTime(T=int(NOW.timestamp()) - 4, I=7)


def run(start: OpTime, end: OpTime, replset: str = "rs0", error: str | None = None) -> Run:
    """A run of slices."""
    return Run(
        id=f"{replset}/{start.key}/1",
        replset=replset,
        start=start,
        end=end,
        covered_until=end,
        slices=3,
        size_bytes=3 << 20,
        epoch=1,
        error=error,
    )


def test_a_range_begins_at_the_first_backup_in_it(ctl: Ctl) -> None:
    ctl.world.backups = [BACKUP]
    ctl.world.slice_runs = [run(OpTime(T=BASE.T - 60, I=1), END)]
    ranges = ctl("list", "-o", "json").json["pitr"]["ranges"]
    assert [(r["start_ts"], r["end_ts"], r["noBaseSnapshot"]) for r in ranges] == [
        (BASE.to_json(), END.to_json(), False)
    ]


def test_what_lacks_a_backup_is_listed_on_demand(ctl: Ctl) -> None:
    start = OpTime(T=BASE.T - 60, I=1)
    ctl.world.backups = [BACKUP]
    ctl.world.slice_runs = [run(start, END)]
    ranges = ctl("list", "--unbacked", "-o", "json").json["pitr"]["ranges"]
    assert [(r["start_ts"], r["noBaseSnapshot"]) for r in ranges] == [
        (start.to_json(), True),
        (BASE.to_json(), False),
    ]


def test_slices_without_any_backup_restore_to_nothing(ctl: Ctl) -> None:
    ctl.world.slice_runs = [run(BASE, END)]
    assert ctl("list", "-o", "json").json["pitr"]["ranges"] == []
    assert "need a backup to begin from" in ctl("status").out


def test_a_gap_is_listed_with_its_cause(ctl: Ctl) -> None:
    ctl.world.slice_gaps = [Gap(replset="rs0", start=BASE, end=END, cause=GapCause.OVERRUN)]
    assert "oplog rolled over" in ctl("list").out
    assert ctl("list", "-o", "json").json["pitr"]["gaps"][0]["cause"] == "oplog rolled over"


def test_status_shows_the_latest_gaps(ctl: Ctl) -> None:
    ctl.world.slice_gaps = [
        Gap(
            replset="rs0",
            start=OpTime(T=BASE.T + n, I=1),
            end=OpTime(T=BASE.T + n, I=2),
            cause=GapCause.OVERRUN,
        )
        for n in range(5)
    ]
    assert len(ctl("status", "-o", "json").json["pitr"]["gaps"]) == 5
    shown = ctl("status", "-s", "pitr").out
    assert shown.count("oplog rolled over") == 3
    assert "2 earlier gaps" in shown


def test_list_says_how_far_the_coverage_is_behind_and_why(ctl: Ctl) -> None:
    is_on = {"pitr": ctl.world.settings.pitr.model_copy(update={"enabled": True})}
    ctl.world.settings = ctl.world.settings.model_copy(update=is_on)
    ctl.world.backups = [BACKUP]
    ctl.world.slice_runs = [run(BASE, END, error="the storage is away; 40% is left")]
    pitr = ctl("list", "-o", "json").json["pitr"]
    assert (pitr["lag_s"], pitr["error"]) == (4.0, "rs0: the storage is away; 40% is left")
    assert "Error: rs0: the storage is away; 40% is left" in ctl("list").out


def test_status_says_how_far_the_coverage_is_behind(ctl: Ctl) -> None:
    ctl.world.backups = [BACKUP]
    ctl.world.slice_runs = [run(BASE, END, error="no space left")]
    pitr = ctl("status", "-o", "json").json["pitr"]
    assert pitr["lag_s"] == 4.0
    assert pitr["error"] == "rs0: no space left"
    assert "Restorable until" in ctl("status").out


def test_replica_set_that_holds_a_cluster_back_is_named(ctl: Ctl) -> None:
    rows = [{"_id": "s0", "host": "rs-a/h1:1"}, {"_id": "s1", "host": "rs-b/h2:1"}]
    ctl.world.topology = topology_of("cfg", rows)
    late = OpTime(T=END.T - 90, I=1)
    ctl.world.slice_runs = [run(BASE, END, "cfg"), run(BASE, late, "rs-a"), run(BASE, END, "gone")]
    behind = ctl("status", "-o", "json").json["pitr"]["behind"]
    assert behind == [
        f"rs-a: archived until {late.wall():%Y-%m-%dT%H:%M:%SZ}, 90 s behind",
        "rs-b: nothing is archived",
    ]
    assert "Behind: rs-b: nothing is archived" in ctl("status").out
    hosts = {one["rs"]: one["nodes"] for one in ctl("status", "-o", "json").json["cluster"]}
    assert [node["errors"] for node in hosts["rs-b"]] == [["no agent"]]

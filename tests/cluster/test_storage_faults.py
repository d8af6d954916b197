"""Operations of real agents on a real S3 server that refuses, throttles, fills up and lists late.

The requests pass a proxy. `make crash` runs the long ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import LONG_S, Scene, moment
from tests.cluster.test_pitr_faults import now, roll_over
from tests.support.compare import assert_same
from tests.support.crashes import IN_FULL
from tests.support.eventually import eventually
from tests.support.leftovers import check_nothing_left
from tests.support.s3_repository import S3Repository
from tests.support.servers.background import Background
from tests.support.servers.proxy import Refuse, Seen

pytestmark = pytest.mark.timeout(400)

DENIED = Refuse(403, "AccessDenied")
FULL = Refuse(507, "InsufficientCapacity")


@pytest.fixture
def s3(scene: Scene, tmp_path: Path) -> Iterator[S3Repository]:
    with Background() as background:
        found = S3Repository(background, tmp_path / "secrets")
        found.configure(scene.ctl)
        yield found
        scene.agents.stop()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [(DENIED, "AccessDenied"), pytest.param(FULL, "Insufficient", marks=IN_FULL)],
)
def test_a_right_lost_or_a_full_storage_is_told_and_slicing_goes_on_when_it_is_mended(
    scene: Scene, s3: S3Repository, refusal: Refuse, reason: str
) -> None:
    """A backup meanwhile fails with the reason; of what was written meanwhile nothing is lost."""
    scene.fill(5)
    scene.enable_pitr(1.0)
    scene.backup()
    s3.script(lambda request: refusal if _writes(request) else None)
    scene.client.shop.late.insert_many([{"_id": number} for number in range(100)])
    told = eventually(lambda: _trouble(scene), 40.0, describe=scene.agents.log_tails)
    assert reason in told
    failed = scene.ctl.run("backup", "--wait", within_s=LONG_S)
    assert failed.status == 1, str(failed)
    assert reason in failed.value["error"]
    expected, at = scene.fingerprint(), now(scene)
    scene.client.shop.late.delete_many({})
    s3.heal()
    scene.wait_covered(at)
    eventually(lambda: not _trouble(scene), 40.0)
    assert len(scene.runs()) == 1, scene.runs()
    assert not scene.gaps()
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert_same(expected, scene.fingerprint())
    check_nothing_left(
        scene.client.admin, [scene.client], scene.ctl, scene.repository / "copy", s3=s3
    )


@IN_FULL
def test_lists_that_are_behind_make_nothing_be_deleted_or_called_lost(
    scene: Scene, s3: S3Repository
) -> None:
    """A backup is taken and one deleted, and no list shows either: a resync, a verification, a
    cleanup without grace and the deletion of a third see what is there all the same."""
    scene.ctl.ok("config", "--set", "policy.sweepGrace=1s")
    scene.fill(5)
    first, second = scene.backup()["name"], scene.backup()["name"]
    scene.ctl.ok("config", "--force-resync", "--wait")
    scene.ctl.ok("cleanup", "-y", "--wait")
    s3.freeze_lists()
    scene.client.shop.late.insert_many([{"_id": number} for number in range(100)])
    expected = scene.fingerprint()
    third = scene.backup()["name"]
    scene.ctl.ok("delete-backup", first, "-y", "--wait", within_s=LONG_S)
    resynced = scene.ctl.ok("config", "--force-resync", "--wait", within_s=LONG_S)
    assert resynced["withdrawn"] == []
    assert _names(scene) == {second, third}
    scene.ctl.ok("verify", third, "--deep", "--wait", within_s=LONG_S)
    scene.ctl.ok("cleanup", "-y", "--wait", within_s=LONG_S)
    scene.ctl.ok("delete-backup", second, "-y", "--wait", within_s=LONG_S)
    assert s3.late_lists > 0
    s3.heal()
    scene.ctl.ok("verify", third, "--deep", "--wait", within_s=LONG_S)
    scene.restore(third)
    assert_same(expected, scene.fingerprint())


@IN_FULL
def test_a_storm_of_refusals_costs_time_and_nothing_else(scene: Scene, s3: S3Repository) -> None:
    """Three of ten requests fail, for every operation; then all of them for a while."""
    scene.enable_pitr(1.0)
    scene.fill(25)
    s3.storm(0.3)
    first = scene.backup()["name"]
    scene.client.shop.late.insert_many([{"_id": number} for number in range(100)])
    begun = scene.begin("backup")
    with s3.away(after=0.3):
        eventually(lambda: _trouble(scene), 60.0, describe=scene.agents.log_tails)
    scene.wait_done(begun)
    expected, at = scene.fingerprint(), now(scene)
    scene.client.drop_database("shop")
    scene.wait_covered(at)
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert_same(expected, scene.fingerprint())
    assert {gap["cause"] for gap in scene.gaps()} <= {"restored"}
    scene.ctl.ok("verify", "--wait", within_s=LONG_S)
    scene.ctl.ok("delete-backup", first, "-y", "--wait", within_s=LONG_S)
    check_nothing_left(
        scene.client.admin, [scene.client], scene.ctl, scene.repository / "copy", s3=s3
    )


@IN_FULL
def test_a_storage_that_is_down_longer_than_the_oplog_reaches_is_a_gap_and_a_new_base(
    scene: Scene, s3: S3Repository
) -> None:
    scene.enable_pitr(1.0, "pitr.autoBase=true")
    (first,) = eventually(lambda: scene.ctl.ok("list")["snapshots"], 60.0)
    with s3.away():
        scene.client.shop.orders.insert_one({"_id": 1})
        eventually(lambda: _trouble(scene), 60.0, describe=scene.agents.log_tails)
        roll_over(scene)
    (gap,) = eventually(scene.gaps, 90.0, describe=scene.agents.log_tails)
    assert gap["cause"] == "oplog rolled over"
    refused = scene.try_restore("--time", "{},{}".format(*moment(gap["end"])))
    assert refused.status == 3, str(refused)
    eventually(lambda: len(_names(scene) - {first["name"]}) == 1, 90.0)
    scene.client.shop.orders.insert_one({"_id": 2})
    expected, at = scene.fingerprint(), now(scene)
    scene.client.shop.orders.insert_one({"_id": 3})
    scene.wait_covered(now(scene))
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert_same(expected, scene.fingerprint())


def _writes(request: Seen) -> bool:
    return request.operation in ("put", "part", "create", "complete")


def _trouble(scene: Scene) -> str:
    """What is said of slicing that does not get on."""
    told = [run.get("error") for run in scene.runs()]
    told += [one["error"] for one in scene.client.admin.tidelogSlices.find({"kind": "trouble"})]
    return " ".join(filter(None, told))


def _names(scene: Scene) -> set[str]:
    return {one["name"] for one in scene.ctl.ok("list")["snapshots"]}

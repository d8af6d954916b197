"""Makes the golden encrypted repository, once: `tests/fixtures/golden-v2`.

    python -m tests.support.golden_encrypted tests/fixtures/golden-v2

A repository's life, by real agents: a backup and slices in clear, encryption enabled in the middle
of a run, an encrypted backup, more slices, a second key that is kept beside the first. Beside it
lie both keys, and `expected.json`, which says by the server's word what must be read. Never made
anew for a version that was released: it stands for what users have on their storage.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.golden import EXPECTED, expectation, fill
from tests.support.mongod import ReplicaSet, SetOptions
from tests.support.workload.runner import mark

PASSPHRASE: Final = "the tide that nobody may know of"
KEYFILE: Final = "5c" * 32
AROUND: Final = {"GOLDEN_PASSPHRASE": PASSPHRASE, "GOLDEN_KEY": KEYFILE}
"""The names that the policy has them by."""


def make(directory: Path) -> None:
    """Fill a directory with the repository, its keys and `expected.json`."""
    directory.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ReplicaSet(SetOptions(name="rs0")) as replset,
        Agents(replset, extra=AROUND) as agents,
    ):
        scene = Scene(replset, agents, Ctl(replset.uri()), Path(scratch) / "repository")
        scene.open()
        marked = live(scene)
        for agent in agents:
            agent.terminate()
        shutil.copytree(
            scene.repository,
            directory / "repository",
            ignore=lambda _, names: {name for name in names if name.startswith(".")},
        )
    (directory / "passphrase").write_text(PASSPHRASE + "\n")
    (directory / "keyfile").write_text(KEYFILE + "\n")
    (directory / EXPECTED).write_text(json.dumps(marked, indent=1) + "\n")


def live(scene: Scene) -> dict[str, object]:
    """All that happens; answers what is expected of it."""
    client = scene.client
    client["before"]["clear"].insert_many({"_id": n, "text": "in clear"} for n in range(20))
    scene.enable_pitr(1.0)
    old = scene.backup("--ns", "before.*")["name"]
    client["before"]["clear"].insert_one({"_id": "after the backup"})
    clear = mark(client)
    scene.wait_covered((clear.time, clear.inc))
    given = ("--provider", "passphrase", "--passphrase-env", "GOLDEN_PASSPHRASE")
    scene.ctl.ok("encryption", "enable", *given, "-y", "--wait")
    fill(client)
    eventually(lambda: any(key.endswith(".enc") for key in scene.slices()), 60.0)
    across = mark(client)
    scene.wait_covered((across.time, across.inc))
    expected = expectation(client)
    sealed = scene.backup("--ns", "shop.*")["name"]
    second = ("--provider", "keyfile", "--option", "keyfile.env=GOLDEN_KEY", "--keep")
    scene.ctl.ok("encryption", "rotate", *second, "-y", "--wait")
    client["shop"]["large"].update_one({"_id": 7}, {"$set": {"text": "changed later"}})
    late = mark(client)
    scene.wait_covered((late.time, late.inc))
    return {
        "old": old,
        "sealed": sealed,
        "clear": [clear.time, clear.inc],
        "across": [across.time, across.inc],
        "late": [late.time, late.inc],
        "collections": expected,
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]))

"""A large backup and its restore through the agents, on every storage: memory, time, equality.

    python -m bench.storages [--gib 2] [--only s3,azure] [--faults 0.2]

The documents are half random, so about half of their bytes travel. Servers run on the same machine
and take their share of it: seconds are no limits of a driver, memory and equality hold anywhere.
With `--faults`, that share of all requests fails: half of them answered with 503, the rest cut
before they are carried out or behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.report import table
from bench.rig import Rig
from bench.scenarios import Row
from tests.support.clouds import CLOUDS, Around, filesystem
from tests.support.servers.background import Background

BUDGET_MIB = 400
DOCUMENT_BYTES = 16 * 1024
_BATCH = 1_000
DRIVERS = {**CLOUDS, "filesystem": filesystem}


def load(client: Any, size_bytes: int) -> None:
    """`bench.halves`: documents of 16 KiB, half random bytes and half text."""
    rng = random.Random(3)
    text = "".join(rng.choices("etaoin shrdlu", k=1 << 20))
    half = DOCUMENT_BYTES // 2
    rows = range(size_bytes // DOCUMENT_BYTES)
    for first in range(0, len(rows), _BATCH):
        client.bench.halves.insert_many(
            (
                {
                    "_id": row,
                    "random": rng.randbytes(half),
                    "text": text[(at := rng.randrange(len(text) - half)) : at + half],
                }
                for row in rows[first : first + _BATCH]
            ),
            ordered=False,
        )


def measure(rig: Rig, name: str, around: Around, faults: float) -> Row:
    """Back everything up, drop it, restore it."""
    cloud = DRIVERS[name](around)
    rig.ctl.ok("config", "--file", "-", stdin=yaml.safe_dump({"storage": cloud.storage}))
    if faults:
        cloud.fail(faults)
    before = _hashes(rig)
    with rig.measured() as cost:
        backup = rig.ask("backup", "--wait")["name"]
    taken = cost()
    stored = next(one for one in rig.ask("list")["snapshots"] if one["name"] == backup)
    rig.client.drop_database("bench")
    with rig.measured() as cost:
        rig.ask("restore", backup, "-y", "--wait")
    restored = cost()
    is_equal = _hashes(rig) == before
    rig.ask("delete-backup", backup, "-y", "--wait")
    peaks = taken.agent_peak_mib, restored.agent_peak_mib
    return {
        "storage": name,
        "stored MB": stored["size"] / 1e6,
        "backup s": taken.wall_s,
        "restore s": restored.wall_s,
        "backup peak MiB": peaks[0],
        "restore peak MiB": peaks[1],
        "equal": "yes" if is_equal else "NO",
        **({"requests": len(cloud.proxy.requests)} if cloud.proxy else {}),
        "within": "yes" if is_equal and max(peaks) <= BUDGET_MIB else "NO",
    }


def _hashes(rig: Rig) -> Any:
    return rig.client.bench.command("dbHash")["collections"]


def main() -> int:
    """Measure the storages that were asked for; status 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="of documents")
    parser.add_argument("--only", default=",".join(DRIVERS), help="storages, with commas")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    given = parser.parse_args()
    rows: list[Row] = []
    with Rig(cache_gb=1.0) as rig, tempfile.TemporaryDirectory() as directory:
        load(rig.client, int(given.gib * (1 << 30)))
        rig.settle()
        for name in given.only.split(","):
            with Background() as background:
                around = Around(Path(directory), background, by_proxy=given.faults > 0)
                rows.append(measure(rig, name, around, given.faults))
            print(table(rows[-1:]), flush=True)
    print(f"\n{given.gib:g} GiB of documents, budget {BUDGET_MIB} MiB:\n\n{table(rows)}")
    return 0 if all(row["within"] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Other tools, measured beside Tidelog where they are on PATH: `mongodump`, `mongorestore`, `pbm`.

A tool is some commands. Where a service of its own does the work (`pbm-agent`), that is started
first and its CPU and memory are what is measured; else they are those of the commands. Tidelog's
agents are stopped meanwhile: what is dumped and restored includes the database that they are
coordinated by.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.rig import Cost, Rig

SERVICE_READY_S: Final = 5.0
"""An agent of PBM loses what it is asked for before it listens, and says nowhere that it does."""
LISTING_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """The command lines of a tool. In them `{uri}` is the replica set's, `{stored}` an empty
    directory for what it stores, `{config}` a file with `config`, `{name}` what `named` answers."""

    name: str
    backup: tuple[str, ...]
    restore: tuple[str, ...]
    service: tuple[str, ...] = ()
    config: str = ""
    prepare: tuple[str, ...] = ()
    listing: tuple[str, ...] = ()
    named: Callable[[str], str] = lambda _: ""
    """The name of the newest backup, from what `listing` prints."""

    @property
    def is_here(self) -> bool:
        """Whether all its programs are on PATH."""
        lines = (self.backup, self.restore, self.service, self.prepare, self.listing)
        return all(shutil.which(line[0]) for line in lines if line)


def _newest(listed: str) -> str:
    done = [one["name"] for one in json.loads(listed)["snapshots"] if one["status"] == "done"]
    return str(max(done))  # names of PBM are times


def _pbm(compression: str) -> Peer:
    uri = "--mongodb-uri={uri}"
    return Peer(
        f"pbm {compression}",
        backup=("pbm", "backup", uri, f"--compression={compression}", "--wait"),
        restore=("pbm", "restore", uri, "{name}", "--wait"),
        service=("pbm-agent", uri),
        config="storage:\n  type: filesystem\n  filesystem:\n    path: {stored}\n",
        prepare=("pbm", "config", uri, "--file={config}", "--wait"),
        listing=("pbm", "list", uri, "--out=json"),
        named=_newest,
    )


def _dump(name: str, *options: str) -> Peer:
    archive = ("--uri={uri}", "--archive={stored}/archive", "--quiet", *options)
    return Peer(name, backup=("mongodump", *archive), restore=("mongorestore", *archive, "--drop"))


KNOWN: Final = (_dump("mongodump"), _dump("mongodump gzip", "--gzip"), _pbm("zstd"), _pbm("s2"))


def beside(rig: Rig, size: int, rounds: int) -> list[Row]:
    """Rows of every tool that is here, with the documents that the rig's server holds now; `size`
    is theirs, in bytes of BSON."""
    found = [peer for peer in KNOWN if peer.is_here]
    if found:
        rig.agents.stop()
    return [row for peer in found for row in measured(rig, peer, size, rounds)]


def measured(rig: Rig, peer: Peer, size: int, rounds: int) -> list[Row]:
    """A backup and a restore in turn, so many times; medians."""
    runs: dict[str, list[Row]] = {"backup": [], "restore": []}
    given = {"uri": rig.replset.uri(), "stored": str(rig.directory / "peer"), "name": ""}
    given["config"] = str(rig.directory / "peer.yaml")
    try:
        with ExitStack() as stack:
            for _ in range(rounds):
                _empty(Path(given["stored"]))
                service = stack.enter_context(_serving(rig, peer, given))
                runs["backup"].append(_step(rig, peer.backup, given, service))
                runs["backup"][-1]["stored MB"] = _stored(Path(given["stored"])) / 1e6
                if peer.listing:
                    given["name"] = peer.named(_run(_filled(peer.listing, given)).stdout)
                runs["restore"].append(_step(rig, peer.restore, given, service))
                rig.settle()
                stack.close()
    except subprocess.CalledProcessError as error:
        return [{"what": peer.name, "failed": (error.stderr or error.stdout or "")[-200:]}]
    return [_row(f"{peer.name}, {step}", found, size) for step, found in runs.items()]


@contextmanager
def _serving(rig: Rig, peer: Peer, given: dict[str, str]) -> Iterator[int | None]:
    """The tool's service while inside, ready; its pid, None for a tool without one."""
    if not peer.service:
        yield None
        return
    Path(given["config"]).write_text(peer.config.format(**given))
    with (rig.directory / "peer.log").open("ab") as log:
        service = subprocess.Popen(_filled(peer.service, given), stdout=log, stderr=log)
        try:
            time.sleep(SERVICE_READY_S)
            _run(_filled(peer.prepare, given))
            time.sleep(SERVICE_READY_S)
            yield service.pid
        finally:
            service.terminate()
            service.wait(STOP_TIMEOUT_S)


def _step(rig: Rig, line: tuple[str, ...], given: dict[str, str], service: int | None) -> Row:
    command, servers = _filled(line, given), [node.pid for node in rig.replset.nodes]
    before = Cost.of(servers), Cost.of([service] if service is not None else [])
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said)
    own = Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    served = Cost.of([service]) if service is not None else own
    return {
        "wall s": wall_s,
        "agent CPU s": served.cpu_s - before[1].cpu_s,
        "mongod CPU s": Cost.of(servers).cpu_s - before[0].cpu_s,
        "agent peak MiB": served.peak_mib,
    }


def _row(what: str, runs: list[Row], size: int) -> Row:
    row: Row = {"what": what, "BSON MB": size / 1e6}
    row |= {column: median(run[column] for run in runs) for column in runs[0]}
    return row | {"agent CPU s/GB": row["agent CPU s"] / (size / 1e9), "rounds": len(runs)}


def _filled(line: tuple[str, ...], given: dict[str, str]) -> list[str]:
    return [part.format(**given) for part in line]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=LISTING_TIMEOUT_S
    )


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()


def _stored(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

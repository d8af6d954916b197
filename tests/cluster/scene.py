"""A replica set with an agent beside each node, a repository and the client: what a fault hits."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.wire.leases import slicer_scope, work_scope
from agent.wire.operations import Kind
from tests.support.agents import AgentProcess, Agents
from tests.support.compare import Fingerprint, fingerprint
from tests.support.ctl import Ctl, CtlResult
from tests.support.eventually import eventually
from tests.support.leftovers import TERMINAL, read_compressed
from tests.support.mongod import MongodNode, ReplicaSet
from tests.support.mongod.replset import Client

LONG_S: Final = 120.0
"""How long a command may take that waits out lapsed leases on a busy machine."""


@dataclass
class Scene:
    """One cluster and its repository."""

    replset: ReplicaSet
    agents: Agents
    ctl: Ctl
    repository: Path
    faults: int = field(default=0)

    @property
    def client(self) -> Client:
        """The set's own client."""
        return self.replset.client()

    def open(self) -> None:
        """Make the repository and tell the cluster of it."""
        self.repository.mkdir(parents=True, exist_ok=True)
        self.ctl.configure_filesystem(self.repository)

    # What is in the cluster

    def fill(self, megabytes: int = 25, seed: int = 1) -> Fingerprint:
        """Collections of about 5 MB, each an object of its own, and small ones that share one."""
        rng = random.Random(seed)
        shop = self.client.shop
        for number in range(max(1, megabytes // 5)):
            shop[f"large{number}"].insert_many(
                {"_id": i, "n": i % 17, "pad": rng.randbytes(30_000)} for i in range(175)
            )
        for number in range(8):
            shop[f"small{number}"].insert_many({"_id": i, "n": i % 7} for i in range(50))
        shop.large0.create_index("n")
        shop.small1.create_index([("n", -1)], name="down", sparse=True)
        return self.fingerprint()

    def fingerprint(self) -> Fingerprint:
        """What the set holds, UUIDs, indexes and options included."""
        return fingerprint(self.client, documents_mb=0)

    # Who does what

    def operation(self, op_id: str) -> dict[str, Any]:
        """The operation's document, as it is."""
        found: dict[str, Any] | None = self.client.admin.tidelogOperations.find_one({"_id": op_id})
        assert found is not None, f"no operation {op_id}"
        return found

    def wait_over(self, op_id: str, within_s: float = LONG_S) -> dict[str, Any]:
        """Wait until the operation has ended, however."""

        def ask() -> dict[str, Any] | None:
            found = self.operation(op_id)
            return found if found["state"] in TERMINAL else None

        found = eventually(ask, within_s, describe=lambda: self.describe(op_id))
        assert found is not None
        return found

    def wait_done(self, op_id: str, within_s: float = LONG_S) -> dict[str, Any]:
        """Wait until the operation is done; any other end fails."""
        found = self.wait_over(op_id, within_s)
        assert found["state"] == "done", self.describe(op_id)
        return found

    def describe(self, op_id: str) -> str:
        """The operation's story and the agents' last lines, for messages."""
        found = self.operation(op_id)
        lines = [f"{e.get('at')} {e.get('state')} {e.get('note')}" for e in found["history"]]
        head = json.dumps({k: found.get(k) for k in ("kind", "state", "error")}, default=str)
        return "\n".join([head, *lines, self.agents.log_tails()])

    def holder(self, scope: str) -> AgentProcess | None:
        """Whose lease it is now."""
        found = self.client.admin.tidelogLeases.find_one({"_id": scope, "owner": {"$ne": None}})
        return self.agents.of(str(found["owner"])) if found else None

    def worker(self, within_s: float = 30.0) -> AgentProcess:
        """The agent that works on the set's part, waiting for one."""
        found = eventually(
            lambda: self.holder(work_scope(self.replset.name, Kind.BACKUP)), within_s
        )
        assert found is not None
        return found

    def slicer(self, within_s: float = 30.0) -> AgentProcess:
        """The agent that slices, waiting for one."""
        found = eventually(lambda: self.holder(slicer_scope(self.replset.name)), within_s)
        assert found is not None
        return found

    def agent_of_primary(self) -> AgentProcess:
        """Who carries out restores."""
        return self.agents.of(self.replset.primary())

    def arm(self, faults: str, *nodes: MongodNode) -> list[AgentProcess]:
        """Start the agents of these nodes (all secondaries where none is given) anew, armed."""
        chosen = [self.agents.of(node) for node in nodes or tuple(self.replset.secondaries())]
        for agent in chosen:
            agent.terminate()
            agent.start(faults=faults)
        for agent in chosen:
            agent.wait_announced()
        return chosen

    def wait_died(self, agents: list[AgentProcess], within_s: float = 60.0) -> AgentProcess:
        """Wait until one of them was killed by its own fault."""

        def ask() -> AgentProcess | None:
            return next((agent for agent in agents if not agent.is_running), None)

        died = eventually(ask, within_s, describe=self.agents.log_tails)
        assert died is not None
        assert died.reap() == -9, f"{died!r} ended by itself\n{died.log_tail()}"
        died.kill()  # says that its end is expected
        self.faults += 1
        return died

    # Commands

    def backup(self, *arguments: str) -> dict[str, Any]:
        """Take a backup and wait for its end; behind one that `pitr.autoBase` asked for, too."""
        found: dict[str, Any] = self.ctl.ok(
            "backup", "--wait", "--queue", *arguments, within_s=LONG_S
        )
        return found

    def begin(self, *arguments: str) -> str:
        """Write a command; answers the operation's id."""
        return str(self.ctl.ok(*arguments)["op_id"])

    def restore(self, *arguments: str) -> dict[str, Any]:
        """Restore and wait for the end; behind a backup that `pitr.autoBase` asked for, too."""
        found: dict[str, Any] = self.ctl.ok(
            "restore", *arguments, "-y", "--wait", "--queue", within_s=LONG_S
        )
        return found

    def bring_back_a_moment(self) -> None:
        """Back up, write on, lose everything, and have exactly the moment before that again."""
        self.enable_pitr()
        self.fill(megabytes=10)
        self.backup()
        self.client.shop.late.insert_many([{"_id": number} for number in range(500)])
        before = self.fingerprint()
        at = self.client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]
        self.client.drop_database("shop")
        self.wait_covered((at.time, at.inc))
        self.restore("--time", f"{at.time},{at.inc}")
        assert self.fingerprint() == before

    def try_restore(self, *arguments: str) -> CtlResult:
        """Restore, however it ends."""
        return self.ctl.run("restore", *arguments, "-y", "--wait", within_s=LONG_S)

    def enable_pitr(self, span_s: float = 3.0, *others: str) -> None:
        """Slice from now on, and wait until somebody does."""
        settings = ["pitr.enabled=true", f"pitr.oplogSpanSec={span_s}", *others]
        self.ctl.ok("config", *(part for one in settings for part in ("--set", one)))
        eventually(self.runs, 40.0, describe=self.agents.log_tails)

    def watch_restore(self, *arguments: str) -> CtlResult:
        """Restore, however it ends and however long it takes, as long as something moves."""
        begun = self.ctl.run("restore", *arguments, "-y")
        if begun.status != 0:
            return begun
        op_id = str(begun.value["op_id"])
        seen, since = None, time.monotonic()
        while (found := self.operation(op_id))["state"] not in TERMINAL:
            if (now := _moving(found)) != seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() - since < LONG_S, f"it stands still\n{self.describe(op_id)}"
            time.sleep(0.2)
        status = 0 if found["state"] == "done" else 1
        story = self.describe(op_id) if status else ""
        return CtlResult(begun.arguments, status, begun.stdout, story)

    # What was archived

    def runs(self) -> list[dict[str, Any]]:
        """The runs of slices that the control database knows, ascending."""
        return list(self.client.admin.tidelogSlices.find({"kind": "run"}).sort("start", 1))

    def gaps(self) -> list[dict[str, Any]]:
        """The gaps it knows."""
        return list(self.client.admin.tidelogSlices.find({"kind": "gap"}).sort("start", 1))

    def covered(self) -> tuple[int, int]:
        """Up to where the newest run reaches."""
        until = max((moment(run["covered_until"]) for run in self.runs()), default=(0, 0))
        ends = max((moment(run["end"]) for run in self.runs()), default=(0, 0))
        return max(until, ends)

    def wait_covered(self, at: tuple[int, int], within_s: float = LONG_S) -> None:
        """Wait until a moment is archived."""
        eventually(
            lambda: self.covered() >= at,
            within_s,
            every_s=0.2,
            describe=lambda: f"{at} wanted, {self.runs()}\n{self.agents.log_tails()}",
        )

    def listing(self, prefix: str = "") -> dict[str, str]:
        """Every object below a prefix with the digest of its content."""
        return {
            path.relative_to(self.repository).as_posix(): _digest(path)
            for path in sorted(self.repository.rglob("*"))
            if path.is_file()
            and not path.name.startswith(".")
            and path.relative_to(self.repository).as_posix().startswith(prefix)
        }

    def manifest(self, name: str) -> dict[str, Any]:
        """The published manifest of this set in a backup."""
        text = (self.repository / "backups" / name / "backup.json").read_text()
        share = json.loads(text)["replsets"][0]
        return read_compressed(self.repository / share["manifest_key"])

    def slices(self) -> list[str]:
        """The keys of all slices on the storage."""
        return sorted(key for key in self.listing("slices/"))


def _moving(operation: dict[str, Any]) -> Any:
    """What changes while somebody works on it."""
    parts = [
        (part["state"], part.get("epoch"), part.get("progress")) for part in operation["parts"]
    ]
    return operation["state"], operation.get("lead_epoch"), parts


def moment(document: dict[str, Any]) -> tuple[int, int]:
    """An OpTime of a control document, comparable."""
    return int(document["T"]), int(document["I"])


def chunk_keys(manifest: dict[str, Any]) -> set[str]:
    """The chunk objects that a manifest names."""
    return {item["key"] for item in manifest["objects"]}


def epochs_of(keys: set[str]) -> set[int]:
    """The epochs of the writers of these chunk objects."""
    return {int(key.rsplit("-", 2)[1]) for key in keys}


def flip_byte(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    """Cut the end of a file off."""
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-20])


def note(text: str) -> None:
    """A figure for who reads the output; a failure shows it."""
    sys.stdout.write(f"{text}\n")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "gone"

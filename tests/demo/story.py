"""A replica set, an agent beside each node, a backup under load, a disaster, a restore, a proof.

The restore goes to a moment after the backup, picked out of the middle of the writes: the backup
carries it to its last write, the oplog slices that the agents archive all the time from there on.
The proof does not rely on Tidelog: what the set held at that moment is rebuilt by
mongod's own crash recovery from a copy of a node's files (`tests.support.oracle`), so writers,
schema changes and transactions need not stop for it; then mongod's `dbHash` of every collection is
compared, and collection options, UUIDs, index specs, views, users and roles with it.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bson.timestamp import Timestamp
from rich.console import Console
from rich.table import Table

from tests.demo.load import Changes, load
from tests.demo.stage import Stage, StepFailedError
from tests.support.agents import Agents
from tests.support.compare import Fingerprint, diff, fingerprint
from tests.support.ctl import Ctl, CtlResult
from tests.support.eventually import eventually
from tests.support.mongod import Member, ReplicaSet, SetOptions
from tests.support.oracle import Oracle
from tests.support.reaper import REAPER
from tests.support.workload import DEFAULT_WEIGHTS, Workload, seed_everything
from tests.support.workload.runner import mark

_ACTIONS_A_SECOND: Final = 60.0
_CHANGES_A_SECOND: Final = 200.0
# Without `drop_database`, so that there is something to compare at the end.
_WEIGHTS: Final = {**DEFAULT_WEIGHTS, "create": 10.0, "drop_database": 0.0}
_BEFORE_THE_BACKUP: Final = 150
_AFTER_THE_BACKUP: Final = 150
_AFTER_THE_MOMENT: Final = 50
_COVERED_WITHIN_S: Final = 60.0
_DEADLINE_S: Final = 120.0
_SHOWN_DIFFERENCES: Final = 25
_SERVERS_OWN: Final = frozenset({"admin", "config", "local"})


class Story:
    """The demo, told once."""

    def __init__(self, console: Console, *, size_mb: int, seed: int, keep: bool) -> None:
        self._stage = Stage(console, steps=9)
        self._console = console
        self._size_mb = size_mb
        self._seed = seed
        self._keep = keep

    def tell(self) -> bool:
        """Do it all; true if the restored data equals the truth."""
        directory = REAPER.make_directory("tidelog-demo-")
        try:
            with ExitStack() as processes:
                equal = self._tell(processes, directory)
        finally:
            if self._keep:
                REAPER.keep_directory(directory)
                self._console.print(
                    f"\nThe repository and the agents' logs are in {directory}", soft_wrap=True
                )
            else:
                REAPER.remove_directory(directory)
        self._stage.summary()
        verdict = "[green]Equal." if equal else "[red]NOT equal."
        self._console.print(f"\n[bold]{verdict}[/]")
        return equal

    def _tell(self, processes: ExitStack, directory: Path) -> bool:
        stage = self._stage
        with stage.step("Start a replica set of three mongods"):
            options = SetOptions(name="demo", members=(Member(),) * 3, oplog_mb=256)
            replset = processes.enter_context(ReplicaSet(options))
            stage.note(replset.uri())
        with stage.step("Start an agent beside each"):
            agents = processes.enter_context(Agents(replset, directory=directory, is_warm=False))
            stage.note(", ".join(agent.id for agent in agents))
        ctl = Ctl(replset.uri(), is_warm=False)
        with stage.step("Tell them where backups go"):
            repository = directory / "repository"
            repository.mkdir()
            self._show("config --set storage.type=filesystem --set storage.filesystem.path=…")
            ctl.configure_filesystem(repository)
            self._show("config --set pitr.enabled=true")
            ctl.ok("config", "--set", "pitr.enabled=true")
        with stage.step(f"Load {self._size_mb} MB, and one of every kind of collection and index"):
            documents = load(replset.client(), self._size_mb)
            seed_everything(replset.client())
            stage.note(f"{documents:,} documents of bulk")
        with Oracle(replset, once=True) as oracle:
            moment = self._back_up_under_load(replset, ctl, documents)
            with stage.step("Ask mongod's own recovery what the set held at that moment"):
                truth = oracle.fingerprint(moment)
        with stage.step("Destroy the data"):
            self._destroy(replset)
        with stage.step("Restore to the moment before"):
            eventually(lambda: _is_covered(ctl, moment), _COVERED_WITHIN_S, every_s=0.5)
            time = f"{moment.time},{moment.inc}"
            self._run(ctl, "restore", "--time", time, "--wait", "--yes")
        with stage.step("Compare"):
            return self._compare(truth, fingerprint(replset.client()))

    def _back_up_under_load(self, replset: ReplicaSet, ctl: Ctl, documents: int) -> Timestamp:
        """Back up while everything changes; answers a moment some seconds later."""
        stage, client = self._stage, replset.client()
        workload = Workload(client, self._seed, weights=_WEIGHTS, rate=_ACTIONS_A_SECOND)
        changes = Changes(client, documents, self._seed, rate=_CHANGES_A_SECOND)
        with stage.step("Back up, while clients write, run transactions and change the schema"):
            with workload, changes:
                eventually(lambda: workload.stats().total >= _BEFORE_THE_BACKUP, 30)
                acted, changed = workload.stats().total, changes.made
                backup = self._run(ctl, "backup", "--wait")
                acted, changed = workload.stats().total - acted, changes.made - changed
                later = workload.stats().total
                eventually(lambda: workload.stats().total >= later + _AFTER_THE_BACKUP, 60)
                moment = mark(client)
                later = workload.stats().total - later
                # Nothing of what comes after it may come back.
                total = workload.stats().total
                eventually(lambda: workload.stats().total >= total + _AFTER_THE_MOMENT, 60)
            stage.note(f"meanwhile {changed} changes of the bulk and {acted} actions of all kinds")
            last = backup["last_write"]
            stage.note(f"{backup['name']} is consistent at {last['T']},{last['I']}")
            stage.note(
                f"the moment to return to: {moment.time},{moment.inc}, {later} actions later"
            )
        return moment

    def _run(self, ctl: Ctl, *arguments: str) -> dict[str, Any]:
        """Run `ctl` with its progress on our terminal, and return its answer."""
        self._show(" ".join(arguments))
        with subprocess.Popen(
            ctl.command(*arguments), env=ctl.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                answer, _ = process.communicate(timeout=_DEADLINE_S)
            except BaseException:
                process.kill()
                raise
        result = CtlResult(arguments, process.returncode, answer, "")
        if result.status != 0 or not isinstance(result.value, dict):
            raise StepFailedError(f"{result}\n(with --keep the agents' logs stay)")
        return dict(result.value)

    def _show(self, command: str) -> None:
        self._console.print(f"    $ ctl {command}", style="bold", markup=False)
        sys.stdout.flush()

    def _destroy(self, replset: ReplicaSet) -> None:
        client = replset.client()
        names = [name for name in client.list_database_names() if name not in _SERVERS_OWN]
        for name in names:
            client[name].command("dropAllUsersFromDatabase")
            client[name].command("dropAllRolesFromDatabase")
            client.drop_database(name)
        client["harbour"]["readings"].insert_many([{"_id": n, "wrong": True} for n in range(100)])
        client["left"]["over from the disaster"].insert_one({"must": "go"})
        self._stage.note(f"dropped {', '.join(names)}; put rubbish in their place")

    def _compare(self, truth: Fingerprint, found: Fingerprint) -> bool:
        differences = diff(truth, found)
        table = Table(show_edge=False, pad_edge=False)
        for heading in ("database", "collections", "views", "indexes", "equal by dbHash"):
            table.add_column(heading, justify="left" if heading == "database" else "right")
        for name, expected in sorted(truth["databases"].items()):
            if expected:
                table.add_row(*_row(name, expected, found["databases"].get(name, {})))
        self._console.print(table)
        for line in differences[:_SHOWN_DIFFERENCES]:
            self._console.print(f"    {line}", style="red", markup=False, soft_wrap=True)
        return not differences


def _is_covered(ctl: Ctl, moment: Timestamp) -> bool:
    """Whether the slices reach a moment; the newest writes follow within seconds."""
    ends = [found["end_ts"] for found in ctl.ok("list")["pitr"]["ranges"]]
    return any((end["T"], end["I"]) >= (moment.time, moment.inc) for end in ends)


def _row(name: str, expected: dict[str, Any], found: dict[str, Any]) -> tuple[str, ...]:
    collections = {key: one for key, one in expected.items() if one["type"] == "collection"}
    equal = sum(one["hash"] == found.get(key, {}).get("hash") for key, one in collections.items())
    indexes = sum(len(one["indexes"]) for one in collections.values())
    views = len(expected) - len(collections)
    return (name, str(len(collections)), str(views), str(indexes), f"{equal}/{len(collections)}")

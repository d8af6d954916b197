"""docs/runbook.md, to the letter: its commands are read from the page and run in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.agents import Agents
from tests.support.compare import assert_same, fingerprint
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet, SetOptions
from tests.support.product import ROOT, environment

PAGE = ROOT / "docs" / "runbook.md"
BACKUP = "2026-11-22T03:08:36Z"
MOMENT = "1795323360,7"
BLOCK = re.compile(r"^ *```(sh|js)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
AGGREGATE = re.compile(r'db\.getSiblingDB\("(\w+)"\)\.(\w+)\.aggregate\((.*)\)')
DROP = re.compile(r'db\.getSiblingDB\("(\w+)"\)\.(\w+)\.drop\(\)')


def procedure(title: str) -> list[tuple[str, str]]:
    """The commands of one section, in order, each with its language."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"no section {title!r}"
    opening = BLOCK.findall(head)[:1]
    found = opening + BLOCK.findall(rest.partition("\n## ")[0])
    return [
        (language, line.strip())
        for language, block in found
        for line in textwrap.dedent(block).splitlines()
        if line.strip()
    ]


@dataclass
class Operator:
    """A person at a terminal, with the page in hand."""

    replset: ReplicaSet
    home: Path
    yours: dict[str, str] = field(default_factory=dict)
    """What the page calls something → what it is called here."""

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        programs = self.home / "bin"
        programs.mkdir(exist_ok=True)
        script = programs / "ctl"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ctl "$@"\n')
        script.chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"
        self.setup: list[str] = []

    def follow(self, title: str, *, refused: str = "") -> list[str]:
        """Do what a section says; the command that contains `refused` has to fail, with the
        sentence that the page quotes. Answers what was printed, command by command."""
        printed = []
        for language, command in procedure(title):
            if language == "js":
                self.in_mongosh(self._in_my_words(command))
            elif command.startswith("export "):
                self.setup.append(self._in_my_words(command))
            else:
                status, text = self.run(self._in_my_words(command))
                expected = 3 if refused and refused in command else 0
                assert status == expected, f"{command}\n{status}\n{text}"
                if expected:
                    self._learn(text)
                printed.append(text)
        return printed

    def run(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", "\n".join([*self.setup, command])],
            env={**environment(), "PATH": self.path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def in_mongosh(self, command: str) -> None:
        """The two forms that the page uses."""
        client = self.replset.client()
        if aggregate := AGGREGATE.fullmatch(command):
            database, collection, pipeline = aggregate.groups()
            client[database][collection].aggregate(yaml.safe_load(pipeline))
        elif drop := DROP.fullmatch(command):
            client[drop[1]].drop_collection(drop[2])
        else:
            raise AssertionError(f"nobody here knows {command!r}")

    def _learn(self, text: str) -> None:
        found = re.search(r"the slices that continue it reach [^(]*\((\d+,\d+)\), not", text)
        assert found is not None, text
        self.yours[MOMENT] = found[1]

    def _in_my_words(self, command: str) -> str:
        for page, mine in self.yours.items():
            command = command.replace(page, mine)
        return command


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("repository", "repository-new"):
        (tmp_path / name).mkdir()
    return tmp_path / "repository"


@pytest.fixture
def old(mongod: Path, repository: Path) -> Iterator[tuple[ReplicaSet, Ctl]]:
    """A cluster with PITR on, a base, and writes since that are archived."""
    with ReplicaSet(SetOptions(name="rs0")) as replset, Agents(replset):
        ctl = Ctl(replset.uri())
        ctl.configure_filesystem(repository)
        ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
        eventually(lambda: ctl.ok("status", "-s", "pitr")["pitr"]["run"], 20.0)
        shop = replset.client().shop
        shop.orders.insert_many([{"_id": number, "state": "new"} for number in range(500)])
        shop.orders.create_index("state")
        shop.users.insert_many([{"_id": name} for name in ("ann", "bob")])
        ctl.ok("backup", "--wait")
        shop.orders.insert_many([{"_id": number, "state": "late"} for number in range(500, 600)])
        yield replset, ctl


def operator(replset: ReplicaSet, repository: Path, **yours: str) -> Operator:
    found = Operator(replset, repository.parent / f"operator-{replset.name}")
    found.yours = {
        "mongodb://tidelog:secret@db1:27017/?authSource=admin": replset.uri(),
        "/mnt/backups": str(repository),
        **yours,
    }
    return found


def test_lost_data_in_one_collection(old: tuple[ReplicaSet, Ctl], repository: Path) -> None:
    replset, ctl = old
    shop = replset.client().shop
    shop.orders.delete_many({"_id": {"$lt": 250}})
    shop.orders.update_one({"_id": 400}, {"$set": {"state": "paid"}})
    (backup,) = ctl.ok("list")["snapshots"]
    me = operator(replset, repository, **{BACKUP: backup["name"]})
    printed = me.follow("Lost data in one collection")
    assert "shop.orders" in printed[1]
    assert "documents: 500" in printed[2]
    assert shop.orders.count_documents({}) == 600, "back, and what came later is still there"
    assert shop.orders.find_one({"_id": 400}) == {"_id": 400, "state": "paid"}, "as it is now"
    assert "orders_restored" not in shop.list_collection_names()
    assert len(ctl.ok("list")["snapshots"]) == 2


@pytest.mark.timeout(120)
def test_lost_cluster_into_a_blank_one(old: tuple[ReplicaSet, Ctl], repository: Path) -> None:
    replset, ctl = old
    last: Any = replset.client().admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]

    def is_archived() -> bool:
        ranges = ctl.ok("list")["pitr"]["ranges"]
        end = ranges[-1]["end_ts"] if ranges else {"T": 0, "I": 0}
        return (end["T"], end["I"]) >= (last.time, last.inc)

    eventually(is_archived, 30.0)
    before = fingerprint(replset.client())
    with ReplicaSet(SetOptions(name="rs0")) as blank, Agents(blank):
        me = operator(blank, repository)
        printed = me.follow(
            "Lost cluster: into a blank one, from storage alone", refused="2100-01-01"
        )
        assert_same(before, fingerprint(blank.client()))
        assert "Restorable until" in printed[-1] or "Running on" in printed[-1], printed[-1]
        assert len(Ctl(blank.uri()).ok("list")["snapshots"]) == 1, printed

"""A configuration made for PBM loads, as docs/from-pbm.md promises."""

from __future__ import annotations

import re

import click
import pytest

from agent.storage.registry import DRIVERS
from agent.wire.settings import Settings, load_yaml
from ctl.app import COMMANDS, app
from tests.support.product import ROOT

PAGE = ROOT / "docs" / "from-pbm.md"

# As PBM's reference has them, every key of the sections backup, restore and pitr included.
FILESYSTEM = """\
storage:
  type: filesystem
  filesystem:
    path: /data/local_backups
    maxObjSizeGB: 5018
    backupBuffSize: 65536
    restoreBuffSize: 65536
pitr:
  enabled: true
  oplogSpanMin: 10
  oplogOnly: false
  compression: s2
  compressionLevel: 2
  priority:
    "localhost:28019": 2.5
    "db2.example.com:27017": 1
backup:
  oplogSpanMin: 2.5
  compression: s2
  compressionLevel: 2
  numParallelCollections: 4
  numParallelFiles: 2
  priority:
    "localhost:28019": 2.5
  timeouts:
    startingStatus: 60
    balancerStop: 30
restore:
  batchSize: 500
  numInsertionWorkers: 10
  numParallelCollections: 6
  numParallelFiles: 1
  numDownloadWorkers: 4
  maxDownloadBufferMb: 0
  downloadChunkMb: 32
  indexCommitQuorum: majority
  mongodLocation: /path/to/mongod
  mongodLocationMap:
    "node01:2017": /path/to/mongod
  fallbackEnabled: false
  allowPartlyDone: true
  timeouts:
    balancerStop: 30
"""


def test_a_configuration_of_pbm_loads_whole() -> None:
    settings = load_yaml(FILESYSTEM)
    assert settings.storage is not None
    assert settings.storage.filesystem is not None
    assert settings.storage.filesystem.path == "/data/local_backups"
    assert settings.pitr.enabled
    assert settings.pitr.oplog_span_s == 600, "its minutes are kept"
    assert settings.pitr.priority == {"localhost:28019": 2.5, "db2.example.com:27017": 1}
    assert settings.backup.stored_compression == "zstd"
    assert settings.backup.num_parallel_collections == 4
    assert settings.backup.timeouts.starting_status == 60
    assert settings.restore.num_insertion_workers == 10
    assert settings.restore.index_commit_quorum == "majority"


def test_nothing_of_it_is_forgotten() -> None:
    assert Settings.from_document(load_yaml(FILESYSTEM).to_document()) == load_yaml(FILESYSTEM)


@pytest.mark.parametrize("section", ["pitr", "backup", "restore"])
def test_a_section_may_stand_alone_and_be_empty(section: str) -> None:
    assert load_yaml(f"{section}:\n") == Settings()


def test_the_span_of_ten_seconds_is_a_default() -> None:
    assert load_yaml("pitr:\n  enabled: true\n").pitr.oplog_span_s == 10


def test_verbs_that_are_the_same_exist_and_those_that_are_missing_do_not() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("\n## Verbs\n")[2].partition("\n## ")[0]
    for pbm, ctl in re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)[2:]:
        verbs = {word.split()[0] for word in re.findall(r"`([a-z][^`]*)`", pbm)}
        if ctl.startswith("the same"):
            assert verbs <= set(COMMANDS), pbm
        elif ctl.startswith("not in this version"):
            assert not verbs & set(COMMANDS), f"{pbm}: it is there by now"


def test_flags_that_are_named_exist() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("\n## Verbs\n")[2].partition("\n## ")[0]
    context = click.Context(app)
    for row in table.splitlines():
        cells = row.strip("| ").split(" | ")
        verb = re.match(r"`([a-z-]+)", cells[0])
        command = app.get_command(context, verb[1]) if verb else None
        if command is None or "the same" not in row:
            continue
        known = {flag for option in command.params for flag in [*option.opts]}
        assert set(re.findall(r"--[a-z-]+", row)) <= known, row


def test_the_storages_are_those_that_can_be_used() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = re.search(r"version can use: (.+?)\.\n", text, re.DOTALL)
    assert told is not None
    assert set(re.findall(r"`(\w+)`", told[1])) == set(DRIVERS)

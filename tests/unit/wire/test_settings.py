"""Settings: PBM's files load as they are, and whatever is wrong is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, NotFound
from agent.wire.compression import stored_compression
from agent.wire.settings import (
    Settings,
    dump_yaml,
    from_mapping,
    get_key,
    load_yaml,
    masked,
    set_key,
    unset_key,
)

FILESYSTEM = "storage: {type: filesystem, filesystem: {path: /backups}}\n"

PBM = """
storage:
  type: filesystem
  filesystem:
    path: /mnt/backups/
    maxObjSizeGB: 5018
    backupBuffSize: 65536
pitr:
  enabled: true
  oplogSpanMin: 0.5
  oplogOnly: false
  compression: s2
  priority:
    rs1-n1.example.com:27017: 2
backup:
  priority:
    rs1-n1.example.com:27017: 2.5
    rs1-n2.example.com:27017: 0
  compression: gzip
  compressionLevel: 6
  numParallelCollections: 4
  timeouts:
    startingStatus: 60
    balancerStop: 30
restore:
  batchSize: 500
  numInsertionWorkers: 10
  numParallelCollections: 2
  numDownloadWorkers: 4
  maxDownloadBufferMb: 512
  downloadChunkMb: 32
  indexCommitQuorum: majority
  mongodLocation: /opt/mongod
  mongodLocationMap:
    "rs1-n1.example.com:27017": /opt/mongod
  fallbackEnabled: false
  allowPartlyDone: true
"""


def test_a_configuration_of_pbm_loads_as_it_is() -> None:
    settings = load_yaml(PBM)
    assert settings.storage is not None
    assert settings.storage.filesystem is not None
    assert settings.storage.filesystem.path == "/mnt/backups"
    assert settings.pitr.oplog_span_s == 30
    assert settings.backup.priority == {
        "rs1-n1.example.com:27017": 2.5,
        "rs1-n2.example.com:27017": 0,
    }
    assert settings.backup.timeouts.starting_status == 60
    assert settings.restore.num_insertion_workers == 10
    assert settings.restore.index_commit_quorum == "majority"


def test_a_name_of_pbms_for_a_compression_means_zstd() -> None:
    assert load_yaml("backup: {compression: s2}").backup.stored_compression == "zstd"
    assert stored_compression("none") == "none"
    assert stored_compression(None) == "zstd"


def test_nothing_is_valid_and_has_defaults() -> None:
    settings = load_yaml("")
    assert settings == Settings()
    assert settings.storage is None
    assert settings.pitr.oplog_span_s == 10
    assert dump_yaml(settings) == ""


@pytest.mark.parametrize(
    "text",
    [
        "backup: {numParallelCollections: 3}",
        "backup: {num_parallel_collections: 3}",
        "backup: {num-parallel-collections: 3}",
        "Backup: {NUMPARALLELCOLLECTIONS: 3}",
    ],
)
def test_keys_may_be_spelled_in_any_case(text: str) -> None:
    settings = load_yaml(text)
    assert settings.backup.num_parallel_collections == 3
    assert settings.to_document() == {"backup": {"numParallelCollections": 3}}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("storag: {}", "unknown key storag", "did you mean storage?"),
        ("backup: {compresion: zstd}", "backup.compresion", "backup.compression?"),
        ("storage: {type: filesystem, filesystem: {pth: /x}}", "filesystem.pth", "filesystem.path"),
        ("pitr: {xyzzy: 1}", "pitr.xyzzy", "known here: "),
        ("backup: {priority: {a: 1}, Priority: {b: 2}}", "backup.Priority is given twice", ""),
        ("storage: {type: tape}", "storage.type", ""),
        ("storage: {type: filesystem}", "section filesystem is missing", ""),
        ("storage: {type: filesystem, filesystem: {path: backups}}", "absolute", ""),
        ("storage: {type: filesystem, filesystem: {}}", "storage.filesystem.path", ""),
        ("pitr: {enabled: perhaps}", "pitr.enabled", ""),
        ("pitr: {oplogSpanMin: 0}", "pitr.oplogSpanMin: a slice spans 1 s or more", ""),
        ("pitr: {oplogSpanMin: 0.01}", "pitr.oplogSpanMin: a slice spans 1 s or more", ""),
        ("pitr: {oplogSpanSec: 0.0001}", "pitr.oplogSpanSec: a slice spans 1 s or more", ""),
        ("pitr: {oplogSpanSec: .inf}", "pitr.oplogSpanSec", ""),
        ("pitr: {priority: {a:27017: -1}}", "pitr.priority.a:27017: ", ""),
        ("backup: {priority: {a:27017: -0.5}}", "backup.priority.a:27017: ", ""),
        ("backup: {priority: {a:27017: .nan}}", "backup.priority.a:27017: ", ""),
        ("backup: {timeouts: {startingStatus: 3 fortnights}}", "unknown unit of time", ""),
        ("backup: {numParallelCollections: 0}", "backup.numParallelCollections", ""),
        ("restore: {indexCommitQuorum: all}", "'all' is no commit quorum", ""),
        ("restore: {indexCommitQuorum: 0}", "'0' is no commit quorum", ""),
        ("- storage", "must be a mapping", ""),
        ("just text", "must be a mapping", ""),
        ("a: [", "not valid YAML in line 1", ""),
        ("storage:\n  type: filesystem\n\tfilesystem: {}", "TAB in line 3", "spaces"),
        ("storage:\n \t type: oss", "TAB in line 2", "spaces"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_yaml(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_stored_document_may_have_keys_of_a_newer_version() -> None:
    document = {"backup": {"compressionLevel": 3, "invented": 1}, "novelty": {}}
    assert Settings.from_document(document).backup.compression_level == 3


@pytest.mark.parametrize("text", ["backup:", "pitr:\nrestore:\nbackup:", "storage:"])
def test_an_empty_section_is_no_section(text: str) -> None:
    assert load_yaml(text).backup == Settings().backup


def test_one_key_can_be_read_set_and_unset() -> None:
    settings = set_key(load_yaml(FILESYSTEM), "backup.compression", "none")
    assert get_key(settings, "backup.compression") == "none"
    assert get_key(settings, "storage.filesystem.path") == "/backups"
    assert get_key(settings, "pitr.enabled") is False
    settings = unset_key(settings, "backup.compression")
    assert get_key(settings, "backup.compression") == "zstd"
    assert settings.to_document()["backup"] == {}


def test_values_on_the_command_line_are_read_as_yaml() -> None:
    settings = set_key(Settings(), "pitr.enabled", "true")
    settings = set_key(settings, "pitr.oplogSpanMin", "0.1")
    settings = set_key(settings, "restore.indexCommitQuorum", "votingMembers")
    assert settings.pitr.enabled is True
    assert settings.pitr.oplog_span_s == 6
    assert settings.restore.index_commit_quorum == "votingMembers"


def test_a_host_is_one_key_though_it_has_dots() -> None:
    settings = set_key(Settings(), "backup.priority.db1.example.com:27017", "2")
    settings = set_key(settings, "backup.priority.db2.example.com:27017", "3")
    assert settings.backup.priority == {"db1.example.com:27017": 2, "db2.example.com:27017": 3}
    settings = unset_key(settings, "backup.priority.db1.example.com:27017")
    assert settings.backup.priority == {"db2.example.com:27017": 3}


def test_a_storage_can_be_set_key_by_key_only_together() -> None:
    with pytest.raises(ConfigError, match="section filesystem is missing"):
        set_key(Settings(), "storage.type", "filesystem")


def test_reading_what_is_not_set_says_so() -> None:
    with pytest.raises(NotFound, match=r"storage.filesystem.path is not set"):
        get_key(Settings(), "storage.filesystem.path")
    with pytest.raises(NotFound):
        unset_key(Settings(), "backup.compression")


@pytest.mark.parametrize("path", ["nope", "backup.nope", "pitr.enabled.deeper"])
def test_unknown_paths_are_refused(path: str) -> None:
    for change in (
        lambda: get_key(Settings(), path),
        lambda: set_key(Settings(), path, "1"),
        lambda: unset_key(Settings(), path),
    ):
        with pytest.raises(ConfigError):
            change()


def test_durations_are_shown_with_their_unit() -> None:
    settings = load_yaml("backup: {timeouts: {startingStatus: 90}}")
    assert masked(settings) == {"backup": {"timeouts": {"startingStatus": "90s"}}}
    assert load_yaml(dump_yaml(settings)) == settings


def test_a_value_that_is_refused_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load_yaml("storage: {type: filesystem, filesystem: {path: {secret: hunter2}}}")
    assert "hunter2" not in str(caught.value)


@given(
    st.builds(
        dict,
        pitr=st.fixed_dictionaries({}, optional={"enabled": st.booleans()}),
        backup=st.fixed_dictionaries(
            {},
            optional={
                "compression": st.sampled_from(["zstd", "none", "s2"]),
                "compressionLevel": st.integers(1, 19),
                "priority": st.dictionaries(
                    st.from_regex(r"[a-z]+(\.[a-z]+)*:[0-9]{1,5}", fullmatch=True),
                    st.floats(0, 10),
                    max_size=3,
                ),
                "timeouts": st.fixed_dictionaries({"startingStatus": st.integers(0, 10**6)}),
            },
        ),
    )
)
def test_settings_survive_storing_and_printing(raw: dict[str, object]) -> None:
    settings = from_mapping(raw)
    assert Settings.from_document(settings.to_document()) == settings
    assert load_yaml(dump_yaml(settings)) == settings

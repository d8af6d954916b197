"""What a person may get wrong: one sentence, a hint and an exit status, by agent and by ctl."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bson
import pytest

from tests.support.agents import AgentProcess, Agents
from tests.support.compare import assert_same, fingerprint
from tests.support.ctl import Ctl, CtlResult
from tests.support.eventually import eventually
from tests.support.mongod import Member, MongodNode, ReplicaSet, SetOptions
from tests.support.reaper import REAPER

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
LONG_S: Final = 90.0


class _Mongos(socketserver.BaseRequestHandler):
    """Answers every command as a mongos answers `hello`."""

    ANSWER: Final = bson.encode(
        {
            "ismaster": True,
            "isWritablePrimary": True,
            "msg": "isdbgrid",
            "maxBsonObjectSize": 16 << 20,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "minWireVersion": 0,
            "maxWireVersion": 17,
            "ok": 1,
        }
    )

    def handle(self) -> None:
        while len(head := self.request.recv(16, 0x100)) == 16:  # MSG_WAITALL
            length, number, _, code = struct.unpack("<iiii", head)
            self.request.recv(length - 16, 0x100)
            if code == OP_QUERY:
                body = struct.pack("<iqii", 8, 0, 0, 1) + self.ANSWER
            else:
                body = struct.pack("<IB", 0, 0) + self.ANSWER
            kind = OP_REPLY if code == OP_QUERY else OP_MSG
            self.request.sendall(struct.pack("<iiii", 16 + len(body), 1, number, kind) + body)


@pytest.fixture(scope="module")
def mongos() -> Iterator[str]:
    """What looks like a mongos until somebody asks for more; the wheel of mongod has none."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mongos) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def standalone(mongod: Path) -> Iterator[str]:
    home = REAPER.make_directory("tidelog-standalone-")
    node = MongodNode(mongod, home, ["--wiredTigerCacheSizeGB", "0.25"], Member())
    node.spawn()
    try:
        node.wait_listening(may_move=True)
        yield node.host
    finally:
        node.kill()
        REAPER.remove_directory(home)


@pytest.fixture(scope="module")
def with_arbiter(mongod: Path) -> Iterator[ReplicaSet]:
    members = (Member(), Member(arbiter=True))
    with ReplicaSet(SetOptions(name="arbitrated", members=members)) as replset:
        yield replset


@contextmanager
def agent_process(
    replset: ReplicaSet, log: Path, uri: str, *arguments: str
) -> Iterator[AgentProcess]:
    extra = {"TIDELOG_MONGODB__DEADLINE": "1s"}
    agent = AgentProcess(replset, replset.nodes[0], log, uri=uri, arguments=arguments, extra=extra)
    agent.start()
    try:
        yield agent
    finally:
        agent.kill()


def said(result: CtlResult, status: int) -> tuple[str, str]:
    """Sentence and hint of a command that must fail with this status."""
    assert result.status == status, result
    assert isinstance(result.value, dict), result
    sentence, hint = result.value["error"], result.value["hint"]
    assert result.stderr.startswith("Error: ") or f"\nError: {sentence}" in result.stderr, result
    assert sentence, result
    assert hint, f"no hint\n{result}"
    assert "\n" not in sentence
    assert not sentence.endswith(".")
    assert len(sentence) < 300, "a sentence, not a page"
    assert "Traceback" not in result.stderr
    return sentence, hint


@pytest.mark.parametrize(
    ("which", "sentence", "hint"),
    [
        ("mongos", "is a mongos", "shard"),
        ("standalone", "is a standalone mongod", "rs.initiate()"),
        ("arbiter", "is an arbiter", "data-bearing"),
    ],
)
def test_servers_that_cannot_be_served_are_named_with_what_to_give_instead(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, sentence: str, hint: str
) -> None:
    with_arbiter: ReplicaSet = request.getfixturevalue("with_arbiter")
    host = with_arbiter.nodes[1].host if which == "arbiter" else request.getfixturevalue(which)
    uri = f"mongodb://user:hunter2@{host}/"
    with agent_process(with_arbiter, tmp_path / "log", uri) as agent:
        found = said(Ctl(uri).run("status"), 2)
        status, log = agent.wait_ended(60), agent.log_text()
    assert sentence in found[0]
    assert host in found[0]
    assert hint in found[1]
    assert status == 2, log
    assert which in log
    assert '"hint": ""' not in log
    assert "hunter2" not in f"{log}{found}"


LEADING_NOWHERE: Final = [
    ("localhost:27017", 2, "does not begin with mongodb://"),
    ("mongodb+srv://u:hunter2@cluster.example.com/", 2, "mongodb+srv"),
    ("mongodb://u:hunter2@h@127.0.0.1:1/", 2, "special character"),
    ("mongodb://u:123/hunter2@127.0.0.1:1/", 2, "special character"),
    ("mongodb://u:hunter2@127.0.0.1:port/", 2, "cannot be read"),
    ("mongodb://u:hunter2@127.0.0.1:1/", 5, "Connection refused"),
    ("mongodb://u:hunter2@no-such-host.invalid/", 5, "no-such-host.invalid"),
]


def test_connection_strings_that_lead_nowhere(one_node: ReplicaSet, tmp_path: Path) -> None:
    """All at once: the driver tries for seconds before it gives up."""
    assert "no connection string is given" in said(Ctl("").run("status"), 2)[0]

    def attempt(number: int, uri: str) -> tuple[int, str, CtlResult]:
        with agent_process(one_node, tmp_path / f"{number}.log", uri) as agent:
            result = Ctl(uri).run("status")
            return agent.wait_ended(90), agent.log_text(), result

    with ThreadPoolExecutor(len(LEADING_NOWHERE)) as pool:
        tries = [
            pool.submit(attempt, number, uri) for number, (uri, _, _) in enumerate(LEADING_NOWHERE)
        ]
    for (uri, status, sentence), tried in zip(LEADING_NOWHERE, tries, strict=True):
        ended, log, result = tried.result()
        found = said(result, status)
        assert ended == status, f"{uri}\n{log}"
        assert sentence in found[0], uri
        assert sentence in log, uri
        assert "agent.failed" in log
        for unwanted in ("Traceback", "hunter2"):
            assert unwanted not in f"{log}{result}", uri


def test_the_agent_names_the_nearest_key_of_its_settings(
    one_node: ReplicaSet, tmp_path: Path
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("log: {levle: info}\n")
    uri = one_node.uri()
    with agent_process(one_node, tmp_path / "log", uri, "--config", str(path)) as agent:
        assert agent.wait_ended(30) == 2
        assert "unknown key log.levle" in agent.log_text()
        assert "did you mean log.level?" in agent.log_text()


@dataclass
class Running:
    """One node, its agent, a repository with one backup, and archiving."""

    replset: ReplicaSet
    agents: Agents
    ctl: Ctl
    backup: dict[str, Any]
    repository: Path


@pytest.fixture(scope="module")
def running(mongod: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    repository = tmp_path_factory.mktemp("repository")
    with ReplicaSet(SetOptions(name="source")) as replset:
        replset.client().shop.orders.insert_one({"_id": 1})
        with Agents(replset) as agents:
            ctl = Ctl(replset.uri())
            ctl.configure_filesystem(repository)
            backup = ctl.ok("backup", "--wait", within_s=LONG_S)
            yield Running(replset, agents, ctl, backup, repository)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence", "hint"),
    [
        (("config", "--set", "storage.filesystm.path=/x"), 2, "storage.filesystm", "filesystem"),
        (("config", "--set", "pitr.enabeld=true"), 2, "pitr.enabeld", "pitr.enabled"),
        (("config", "--set", "pitr"), 2, "no assignment", "section.key=value"),
        (("config", "--set", "storage.type=tape"), 2, "storage.type: ", "docs/settings.md"),
        (("config", "pitr.nothing"), 2, "unknown key pitr.nothing", ""),
        (("backup", "--type", "fancy"), 2, "fancy", "--help"),
        (("backup", "--ns", "*.orders"), 2, "no namespace pattern", "db.collection"),
        (("describe-backup", "{near}"), 4, "{near}", "{name}"),
        (("restore", "{near}", "-y"), 4, "{near}", "{name}"),
        (("delete-backup", "{near}", "-y"), 4, "{near}", "{name}"),
        (("describe-restore", "nothing"), 4, "nothing", ""),
        (("restore", "{name}"), 3, "terminal", "-y"),
        (("delete-backup", "{name}"), 3, "terminal", "-y"),
        (("restore", "-y"), 2, "NAME", "--help"),
        (("restore", "--time", "yesterday", "-y"), 2, "yesterday", "YYYY-MM-DD"),
        (("restore", "--time", "2026-02-30T00:00:00", "-y"), 2, "2026-02-30", ""),
        (
            ("restore", "--time", "2001-01-01T00:00:00", "-y"),
            3,
            "no full backup",
            "earliest moment is 20",
        ),
        (
            ("restore", "--time", "2100-01-01T00:00:00", "-y", "-w"),
            3,
            ", not 2100-01-01T00:00:00Z",
            "covered",
        ),
        (("restore", "{name}", "--ns", "shop.order", "-y", "-w"), 4, "shop.order", "shop.orders"),
        (("restore", "{name}", "--ns", "a..*b", "-y"), 2, "a..*b", "db.collection"),
        (("restore", "{name}", "--ns-from", "shop.orders", "-y"), 2, "--ns-to", "--help"),
        (
            ("restore", "{name}", "--replset-remapping", "b=a", "-y", "-w"),
            *(3, "holds no replica set a", "source"),
        ),
        (("logs", "--op", "x"), 2, "--op", ""),
        (("nonsense",), 2, "nonsense", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_wrong_command_is_answered_with_a_sentence_a_hint_and_a_status(
    running: Running, arguments: tuple[str, ...], status: int, sentence: str, hint: str
) -> None:
    name = running.backup["name"]
    names = {"name": name, "near": name.replace("Z", "X")}
    before = fingerprint(running.replset.client())
    result = running.ctl.run(*(one.format(**names) for one in arguments), within_s=LONG_S)
    found = said(result, status)
    assert sentence.format(**names) in found[0]
    assert hint.format(**names) in found[1]
    assert_same(before, fingerprint(running.replset.client()))


def test_a_restore_while_a_backup_runs_is_refused_and_names_it(running: Running) -> None:
    (agent,) = running.agents
    assert agent.terminate() == 0
    agent.start(faults="snapshot.catalogued=sleep:4")
    agent.wait_announced()
    try:
        asked = running.ctl.ok("backup")
        sentence, hint = said(running.ctl.run("restore", running.backup["name"], "-y"), 3)
        assert f"another operation in progress: backup {asked['name']}" in sentence
        assert "wait" in hint
        eventually(lambda: not running.ctl.ok("status")["running"], 40.0, every_s=0.2)
    finally:
        agent.terminate()
        agent.start()
        agent.wait_announced()


def test_a_set_of_another_name_needs_the_flag_that_is_named(running: Running, mongod: Path) -> None:
    with ReplicaSet(SetOptions(name="target")) as replset, Agents(replset):
        ctl = Ctl(replset.uri())
        ctl.configure_filesystem(running.repository)
        ctl.ok("config", "--force-resync", "--wait", within_s=LONG_S)
        restore = ("restore", running.backup["name"], "-y", "--wait")
        sentence, hint = said(ctl.run(*restore, within_s=LONG_S), 3)
        assert "is of replica set source, and there is no target" not in sentence
        assert "replica set source" in sentence
        assert "--replset-remapping target=source" in hint
        ctl.ok(*restore, "--replset-remapping", "target=source", within_s=LONG_S)
        assert replset.client().shop.orders.count_documents({}) == 1


def test_without_a_storage_nothing_is_written_down(one_node: ReplicaSet) -> None:
    ctl = Ctl(one_node.uri())
    for arguments in (["backup"], ["config", "--check"], ["config", "--force-resync"]):
        sentence, hint = said(ctl.run(*arguments), 3)
        assert "no storage is configured" in sentence
        assert "ctl config --file" in hint
    assert ctl.ok("status")["running"] == []


def test_an_agent_outlives_a_storage_whose_settings_cannot_work(
    one_node: ReplicaSet, tmp_path: Path
) -> None:
    """A temporary key of Alibaba Cloud without its token: found out when a call is to be made."""
    settings = {
        "type": "oss",
        "oss.region": "eu-central-1",
        "oss.bucket": "backups",
        "oss.credentials.accessKeyID": "STS.temporary",
        "oss.credentials.accessKeySecret": "{env: BACKUP_SECRET}",
    }
    given = [part for key, text in settings.items() for part in ("--set", f"storage.{key}={text}")]
    with Agents(one_node, extra={"BACKUP_SECRET": "secret"}) as agents:
        ctl = Ctl(one_node.uri())
        assert "STS" in said(ctl.run("config", *given), 1)[0]
        (agent,) = agents
        eventually(
            lambda: "encryption.probe_failed" in agent.log_text(), 20.0, describe=agent.log_tail
        )
        agent.check_running()
        ctl.configure_filesystem(tmp_path)
        ctl.ok("backup", "--wait", within_s=LONG_S)

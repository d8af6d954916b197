"""Keyfile and logins: the roles that `ctl db-role` prints are enough, less is refused in time, and
the password stays where it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import pytest
from bson.timestamp import Timestamp

from tests.support.agents import AgentProcess, Agents
from tests.support.compare import assert_same, diff, fingerprint
from tests.support.ctl import Ctl, CtlResult
from tests.support.eventually import eventually
from tests.support.mongod import Auth, Member, MongodNode, ReplicaSet, SetOptions
from tests.support.mongod.replset import Client
from tests.support.workload import Workload, seed_everything
from tests.support.workload.runner import mark

USER: Final = "tide log"
PASSWORD: Final = "pä:ss/w@rd?&#%=ß"
LONG_S: Final = 180.0
Document = dict[str, Any]


def login(user: str = USER, password: str = PASSWORD) -> str:
    return f"{quote_plus(user)}:{quote_plus(password)}@"


def agent_uri(replset: ReplicaSet, node: MongodNode) -> str:
    return f"mongodb://{login()}{node.host}/?authSource=admin"


def printed_roles(purpose: str) -> list[Document]:
    roles: list[Document] = Ctl("").ok("db-role", purpose)["roles"]
    return roles


def grant(client: Client, roles: list[Document]) -> None:
    """Make the agents' user have these roles and nothing else."""
    known = {role["role"] for role in client.admin.command("rolesInfo", 1)["roles"]}
    for role in roles:
        name, rest = role["createRole"], {k: v for k, v in role.items() if k != "createRole"}
        verb = "updateRole" if name in known else "createRole"
        client.admin.command({verb: name, **rest})
    names = [role["createRole"] for role in roles]
    there = client.admin.command("usersInfo", USER)["users"]
    told = {"updateUser": USER} if there else {"createUser": USER, "pwd": PASSWORD}
    client.admin.command({**told, "roles": names})


@dataclass
class Guarded:
    """A set that asks for logins, agents that have the printed roles only, and a repository."""

    replset: ReplicaSet
    agents: Agents
    ctl: Ctl

    @property
    def client(self) -> Client:
        """Logged in as root."""
        return self.replset.client()

    def done(self, *arguments: str) -> Document:
        """A command carried out to its end."""
        found: Document = self.ctl.ok(*arguments, "--wait", within_s=LONG_S)
        return found

    def covered(self) -> tuple[int, int]:
        """Up to where the oplog is archived."""
        runs = self.client.admin.tidelogSlices.find({"kind": "run"})
        ends = [(run["covered_until"]["T"], run["covered_until"]["I"]) for run in runs]
        return max(ends, default=(0, 0))

    def wait_covered(self, at: Timestamp) -> None:
        """Wait until a moment is archived."""
        eventually(
            lambda: self.covered() >= (at.time, at.inc),
            60.0,
            every_s=0.1,
            describe=self.agents.log_tails,
        )


@pytest.fixture(scope="module", params=[1, 3], ids=["one node", "three nodes"])
def guarded(
    request: pytest.FixtureRequest, mongod: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    options = SetOptions(name="guarded", members=(Member(),) * request.param, auth=Auth())
    with ReplicaSet(options) as replset:
        grant(replset.client(), printed_roles("restore"))
        with Agents(replset, uri_of=agent_uri, is_warm=False) as agents:
            ctl = Ctl(f"mongodb://{login()}{replset.nodes[0].host}/?authSource=admin")
            ctl.configure_filesystem(tmp_path_factory.mktemp("repository"))
            ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
            yield Guarded(replset, agents, ctl)


def change_everything(client: Client) -> None:
    """Each kind of command that a replay carries out on the target, or sees to at the end."""
    seed = client.seed
    seed.command({"collMod": "mixed ids", "validator": {"n": {"$ne": -1}}})
    seed["mixed ids"].rename("moved ids")
    seed.command("emptycapped", "kind.capped.0")
    seed["all indexes"].drop_index("single")
    seed.drop_collection("kind.validated.0")
    seed.command({"collMod": "view", "viewOn": "moved ids", "pipeline": []})
    seed.drop_collection("view on nothing")
    seed["system.js"].insert_one({"_id": "double", "value": "function(x) { return 2 * x; }"})
    client.drop_database("seed_hollow")
    client.fresh.command({"create": "capped", "capped": True, "size": 4096})
    client.fresh.command({"create": "series", "timeseries": {"timeField": "t"}})
    client.fresh.command({"create": "view", "viewOn": "capped", "pipeline": []})


@pytest.mark.timeout(240)
def test_the_printed_roles_are_enough_for_everything(guarded: Guarded) -> None:
    """On one node what concerns parts of a backup, on three what concerns all of it."""
    client = guarded.client
    seed_everything(client, large=False)
    with Workload(client, seed=11, rate=200):
        guarded.wait_covered(mark(client))
        name = guarded.done("backup")["name"]
    if len(guarded.replset.nodes) == 1:
        work_with_parts(guarded, name)
    else:
        work_with_all(guarded, name)
    denied = client.admin.tidelogEvents.count_documents({"fields.error": {"$regex": "authorized"}})
    assert denied == 0
    check_secret(guarded, name)


def work_with_parts(guarded: Guarded, name: str) -> None:
    """Selective restores, and what looks after the repository."""
    client = guarded.client
    client.seed.command({"updateUser": "ännä", "pwd": "another"})
    client.drop_database("seed")
    guarded.done(
        "restore", name, "--ns-from", "seed.kind.timeseries.0", "--ns-to", "b.series", "-y"
    )
    assert client.b.series.count_documents({}) == 150
    guarded.done("restore", name, "--ns", "seed.*", "--with-users-and-roles", "-y")
    check_login(guarded, "mixed ids")
    resynced = guarded.done("config", "--force-resync", "--include-restores")
    assert resynced["status"] == "done"
    second = guarded.done("backup", "--ns", "b.*")["name"]
    assert guarded.done("delete-backup", second, "-y")["status"] == "done"


def work_with_all(guarded: Guarded, name: str) -> None:
    """To a moment, and to the end of the backup; users and roles with it."""
    client = guarded.client
    change_everything(client)
    Workload(client, seed=12, rate=0).run(100)
    at = mark(client)
    expected = fingerprint(client)
    guarded.wait_covered(at)
    # What came later is undone, but for the user whom the agents log in as.
    client.seed.command({"updateUser": "ännä", "pwd": "another"})
    client.seed.command({"createUser": "late", "pwd": "late", "roles": []})
    client.admin.command({"updateUser": USER, "customData": {"kept": True}})
    client.drop_database("seed-odd")
    guarded.done("restore", "--time", f"{at.time},{at.inc}", "-y")
    assert_same(expected, fingerprint(client), ignore_users=[f"admin.{USER}"])
    (kept,) = client.admin.command("usersInfo", USER)["users"]
    assert kept["customData"] == {"kept": True}
    check_login(guarded, "moved ids")
    guarded.done("restore", name, "-y")
    assert "fresh" not in client.list_database_names()
    # The same once more, onto what the backup left: index changes included.
    start = guarded.ctl.ok("describe-backup", name)["last_write"]
    span = ("--start", f"{start['T']},{start['I']}", "--end", f"{at.time},{at.inc}")
    guarded.done("oplog-replay", *span, "-y")
    found = diff(expected, fingerprint(client), uuids=False, principals=False)
    assert found == []


def check_login(guarded: Guarded, collection: str) -> None:
    """A user of the backup logs in with the password of then."""
    host = guarded.replset.primary().host
    as_user = guarded.replset.connect(
        f"mongodb://{login('ännä', 'pass word')}{host}/?authSource=seed&directConnection=true"
    )
    assert as_user.seed[collection].count_documents({}) > 0


def check_secret(guarded: Guarded, name: str) -> None:
    """The password is in nothing that anybody can read later."""
    texts = {
        "events": str(list(guarded.client.admin.tidelogEvents.find())),
        "operations": str(list(guarded.client.admin.tidelogOperations.find())),
        "settings": str(list(guarded.client.admin.tidelogConfig.find())),
        "registry": str(list(guarded.client.admin.tidelogAgents.find())),
    }
    for agent in guarded.agents:
        texts[f"log of {agent.id}"] = agent.log_text()
        texts[f"ps of {agent.id}"] = Path(f"/proc/{agent.pid}/cmdline").read_text()
    for arguments in (
        *(["config"], ["status"], ["logs"], ["describe-backup", name], ["list"]),
        *(["describe-backup", "nothing"], ["restore", "nothing", "-y"], ["config", "no.such"]),
    ):
        texts[f"ctl {arguments}"] = str(guarded.ctl.run(*arguments))
    found = [where for where, text in texts.items() for one in spellings() if one in text]
    assert not found


def spellings(password: str = PASSWORD) -> tuple[str, ...]:
    return password, quote_plus(password)


@pytest.fixture(scope="module")
def small(mongod: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with ReplicaSet(SetOptions(name="small", auth=Auth())) as replset:
        grant(replset.client(), printed_roles("backup"))
        replset.client().shop.orders.insert_one({"_id": 1})
        replset.client().shop.command({"create": "view", "viewOn": "orders", "pipeline": []})
        with Agents(replset, uri_of=agent_uri, is_warm=False) as agents:
            ctl = Ctl(f"mongodb://{login()}{replset.nodes[0].host}/?authSource=admin")
            ctl.configure_filesystem(tmp_path_factory.mktemp("repository"))
            found = Guarded(replset, agents, ctl)
            backups_only(found)
            grant(replset.client(), printed_roles("restore"))
            yield found


def backups_only(small: Guarded) -> None:
    """With the role for backups alone everything works but restores."""
    small.ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
    small.wait_covered(mark(small.client))
    small.ctl.ok("config", "--set", "pitr.enabled=false")
    name = small.done("backup")["name"]
    small.done("config", "--force-resync", "--include-restores")
    assert small.done("delete-backup", name, "-y")["status"] == "done"
    small.ctl.ok("status")


def without(roles: list[Document], action: str, resource: Document | None = None) -> list[Document]:
    """The roles less one action, everywhere or on one resource."""
    return [
        {
            **role,
            "privileges": [
                {**one, "actions": left}
                for one in role["privileges"]
                if (
                    left := [
                        a
                        for a in one["actions"]
                        if a != action or (resource is not None and one["resource"] != resource)
                    ]
                )
            ],
        }
        for role in roles
    ]


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ("backup role only", "forceUUID"),
        ("mergeless", "dropUser"),
        ("viewless", "system.views"),
    ],
)
def test_a_restore_without_the_rights_is_refused_before_anything_is_touched(
    small: Guarded, held: str, named: str
) -> None:
    name = small.done("backup")["name"]
    small.client.shop.orders.insert_one({"later": True})
    expected = fingerprint(small.client)
    both = printed_roles("restore")
    views = {"db": "", "collection": "system.views"}
    chosen = {
        "backup role only": printed_roles("backup"),
        "mergeless": without(both, "dropUser"),
        "viewless": without(both, "remove", views),
    }[held]
    grant(small.client, chosen)
    try:
        result = small.ctl.run("restore", name, "-y", "--wait", within_s=LONG_S)
    finally:
        grant(small.client, both)
    assert result.status == 1, result
    assert f"the user {USER} of admin lacks" in result.value["error"]
    assert named in result.value["error"]
    recorded = small.ctl.ok("describe-restore", small.ctl.ok("list", "--restore")[-1]["name"])
    assert "ctl db-role restore" in str(recorded)
    assert diff(expected, fingerprint(small.client), principals=False) == []


def test_a_backup_without_a_right_fails_with_one_sentence(small: Guarded) -> None:
    views = {"db": "", "collection": "system.views"}
    both = printed_roles("restore")
    grant(small.client, without(both, "find", views))
    try:
        result = small.ctl.run("backup", "--wait", within_s=LONG_S)
    finally:
        grant(small.client, both)
    assert result.status == 1, result
    assert "not authorized on shop to execute find" in result.value["error"]
    assert "{" not in result.value["error"]
    assert small.done("backup")["status"] == "done", "granted again, it works at once"


def ended(replset: ReplicaSet, uri: str, log: Path) -> tuple[int, str]:
    agent = AgentProcess(replset, replset.nodes[0], log, uri=uri)
    agent.start()
    try:
        return agent.wait_ended(40.0), agent.log_text()
    finally:
        agent.kill()


def asked(uri: str) -> CtlResult:
    return Ctl(uri).run("status")


def test_a_user_without_roles_is_told_which_to_have(small: Guarded, tmp_path: Path) -> None:
    small.client.admin.command("createUser", "bare", pwd=PASSWORD, roles=[])
    uri = f"mongodb://{login('bare')}{small.replset.nodes[0].host}/?authSource=admin"
    status, log = ended(small.replset, uri, tmp_path / "log")
    assert status == 2, log
    assert "not authorized on admin to execute" in log
    assert "ctl db-role" in log
    result = asked(uri)
    assert result.status == 1, result
    assert "ctl db-role" in result.value["hint"]
    assert not [one for one in spellings() if one in log + str(result)]


@pytest.mark.parametrize(
    ("user", "password", "options"),
    [
        (USER, "wröng/p@ss", "authSource=admin"),
        ("nobody", PASSWORD, "authSource=admin"),
        (USER, PASSWORD, "authSource=elsewhere"),
    ],
    ids=["password", "user", "authSource"],
)
def test_a_refused_login_is_a_wrong_setting_and_tells_no_password(
    small: Guarded, tmp_path: Path, user: str, password: str, options: str
) -> None:
    uri = f"mongodb://{login(user, password)}{small.replset.nodes[0].host}/?{options}"
    status, log = ended(small.replset, uri, tmp_path / "log")
    assert status == 2, log
    result = asked(uri)
    assert result.status == 2, result
    for said in (log, result.value["error"]):
        assert "the login was refused" in said
    assert "authSource" in result.value["hint"]
    assert "Traceback" not in log + str(result)
    assert not [one for one in spellings(password) if one in log + str(result)]


def test_the_connection_string_may_come_from_a_file(small: Guarded, tmp_path: Path) -> None:
    """As a systemd credential does: then neither `ps` nor the environment has the password."""
    node = small.replset.nodes[0]
    secret = tmp_path / "uri"
    secret.write_text(agent_uri(small.replset, node) + "\n")
    secret.chmod(0o600)
    extra = {"TIDELOG_MONGODB_URI": "", "TIDELOG_MONGODB__URI_FILE": str(secret)}
    (beside,) = small.agents
    assert beside.terminate() == 0
    agent = AgentProcess(small.replset, node, tmp_path / "log", extra=extra)
    agent.is_warm = False
    agent.start()
    try:
        agent.wait_announced()
        public = [Path(f"/proc/{agent.pid}/{what}").read_bytes() for what in ("cmdline", "environ")]
        shown = b"".join(public).decode(errors="replace") + agent.log_text()
        assert not [one for one in spellings() if one in shown]
        assert agent.terminate() == 0
    finally:
        agent.kill()
        small.agents.start()

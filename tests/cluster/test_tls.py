"""TLS with a private authority: logins by certificate and by password, and what is turned away."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus, urlencode

import pytest

from tests.support.agents import AgentProcess, Agents
from tests.support.compare import assert_same, fingerprint
from tests.support.ctl import Ctl, CtlResult
from tests.support.mongod import Auth, MongodNode, ReplicaSet, SetOptions
from tests.support.mongod.certificates import CLIENT_USER, Certificates

PASSWORD: Final = "s3cret:/é@%"
LONG_S: Final = 120.0
X509: Final = {"authMechanism": "MONGODB-X509", "authSource": "$external"}


def uri(host: str, options: dict[str, str], login: str = "") -> str:
    return f"mongodb://{login}{host}/?{urlencode(options)}"


def x509_uri(replset: ReplicaSet, node: MongodNode) -> str:
    found = replset.certificates
    assert found is not None
    files = {"tlsCAFile": str(found.ca), "tlsCertificateKeyFile": str(found.client)}
    return uri(node.host, {"tls": "true", **files, **X509})


def scram_uri(replset: ReplicaSet, node: MongodNode, password: str = PASSWORD) -> str:
    assert replset.certificates is not None
    files = {"tlsCAFile": str(replset.certificates.ca), "authSource": "admin"}
    return uri(node.host, {"tls": "true", **files}, f"tidelog:{quote_plus(password)}@")


def make_users(replset: ReplicaSet) -> None:
    """The agents' user twice: by certificate, and by password."""
    admin = replset.client().admin
    roles = Ctl("").ok("db-role", "restore")["roles"]
    for role in roles:
        admin.command(role)
    names = [{"role": role["createRole"], "db": "admin"} for role in roles]
    admin.command("createUser", "tidelog", pwd=PASSWORD, roles=names)
    replset.client()["$external"].command("createUser", CLIENT_USER, roles=names)


@pytest.fixture(scope="module", params=[False, True], ids=["optional", "demanded"])
def replset(request: pytest.FixtureRequest, mongod: Path) -> Iterator[ReplicaSet]:
    """A node that speaks nothing but TLS; clients may, or have to, show certificates."""
    options = SetOptions(name="tls", auth=Auth(), tls=True, tls_demands_certificates=request.param)
    with ReplicaSet(options) as found:
        make_users(found)
        yield found


def test_a_backup_and_a_restore_over_tls(replset: ReplicaSet, tmp_path: Path) -> None:
    """By certificate where certificates are demanded, else by password."""
    uri_of = x509_uri if replset.options.tls_demands_certificates else scram_uri
    shop = replset.client().shop
    shop.orders.insert_many({"n": number} for number in range(100))
    expected = fingerprint(replset.client())
    ctl = Ctl(uri_of(replset, replset.nodes[0]))
    with Agents(replset, uri_of=uri_of) as agents:
        ctl.configure_filesystem(tmp_path)
        name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        shop.orders.delete_many({})
        ctl.ok("restore", name, "-y", "--wait", within_s=LONG_S)
        said = agents.log_tails() + str(list(replset.client().admin.tidelogEvents.find()))
    assert_same(expected, fingerprint(replset.client()))
    assert PASSWORD not in said
    assert quote_plus(PASSWORD) not in said


@dataclass(frozen=True)
class Wrong:
    """A connection string that does not do, and what has to be said of it."""

    options: dict[str, str]
    status: int
    sentence: str
    hint: str
    if_optional: bool = True
    if_demanded: bool = True
    login: str = f"tidelog:{quote_plus(PASSWORD)}@"


WRONG: Final = {
    "no TLS": Wrong({}, 5, "connection closed", "add tls=true"),
    "no authority": Wrong({"tls": "true"}, 2, "is not accepted: self-signed", "tlsCAFile"),
    "another authority": Wrong(
        {"tls": "true", "tlsCAFile": "{foreign.ca}"}, 2, "is not accepted", "tlsCAFile"
    ),
    "no such file": Wrong({"tls": "true", "tlsCAFile": "/nowhere/ca"}, 2, "/nowhere/ca", ""),
    "no certificate": Wrong(
        {"tls": "true", "tlsCAFile": "{own.ca}"},
        *(5, "connection closed", "tlsCertificateKeyFile"),
        if_optional=False,
    ),
    "a foreign certificate": Wrong(
        {
            "tls": "true",
            "tlsCAFile": "{own.ca}",
            "tlsCertificateKeyFile": "{foreign.client}",
        },
        *(5, "connection closed", "authority that signed the client's certificate"),
    ),
    "a certificate without its key": Wrong(
        {"tls": "true", "tlsCAFile": "{own.ca}", "tlsCertificateKeyFile": "{own.ca}"},
        *(2, "", ""),
    ),
    "x509 without a certificate": Wrong(
        {"tls": "true", "tlsCAFile": "{own.ca}", **X509},
        *(2, "the login was refused", "$external"),
        if_demanded=False,
        login="",
    ),
    "x509 of no user": Wrong(
        {"tls": "true", "tlsCAFile": "{own.ca}", "tlsCertificateKeyFile": "{own.server}", **X509},
        *(2, "the login was refused", "$external"),
        login="",
    ),
    "wrong password": Wrong(
        {"tls": "true", "tlsCAFile": "{own.ca}", "tlsCertificateKeyFile": "{own.client}"},
        *(2, "the login was refused", "password"),
        login=f"tidelog:{quote_plus(PASSWORD + 'x')}@",
    ),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Another authority, with certificates of its own."""
    return Certificates.create(tmp_path_factory.mktemp("foreign"))


@pytest.mark.timeout(120)
def test_what_does_not_do_ends_with_a_sentence_a_hint_and_a_status(
    replset: ReplicaSet, foreign: Certificates, tmp_path: Path
) -> None:
    """All at once: the driver tries for seconds before it gives up."""
    demanded = replset.options.tls_demands_certificates
    cases = {
        name: case
        for name, case in WRONG.items()
        if (case.if_demanded if demanded else case.if_optional)
    }
    with ThreadPoolExecutor(len(cases)) as pool:
        tries = {
            name: pool.submit(attempt, replset, foreign, tmp_path / f"{number}.log", case)
            for number, (name, case) in enumerate(cases.items())
        }
    for name, tried in tries.items():
        check_said(name, cases[name], *tried.result())


def attempt(
    replset: ReplicaSet, foreign: Certificates, log: Path, case: Wrong
) -> tuple[int, str, CtlResult]:
    """The agent's status and log, and what ctl says."""
    options = {
        key: value.format(own=replset.certificates, foreign=foreign)
        for key, value in case.options.items()
    }
    wrong = uri(replset.nodes[0].host, options, case.login)
    agent = AgentProcess(
        *(replset, replset.nodes[0], log),
        uri=wrong,
        extra={"TIDELOG_MONGODB__DEADLINE": "1s"},
    )
    agent.start()
    try:
        result = Ctl(wrong).run("status")
        return agent.wait_ended(90.0), agent.log_text(), result
    finally:
        agent.kill()


def check_said(name: str, case: Wrong, ended: int, log: str, result: CtlResult) -> None:
    assert (ended, result.status) == (case.status, case.status), f"{name}\n{log}\n{result}"
    for said in (log, result.value["error"]):
        assert case.sentence in said, name
    for said in (log, result.value["hint"]):
        assert case.hint in said, name
    everything = log + str(result)
    for unwanted in ("Traceback", PASSWORD, quote_plus(PASSWORD)):
        assert unwanted not in everything, name

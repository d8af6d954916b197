"""What lies in deploy/ works: the unit as systemd sees it and as the agent lives under it, the
Compose file, the Dockerfile's sources."""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import load
from agent.wire.settings import from_mapping
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet
from tests.support.mongod.ports import free_port
from tests.support.product import ROOT

UNIT = ROOT / "deploy" / "systemd" / "tidelog-agent.service"
DIRECTORY = UNIT.with_name("storage-directory.conf")
ENVIRONMENT = UNIT.with_name("tidelog-agent.env")
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
PROMETHEUS = ROOT / "deploy" / "prometheus"
MOST_EXPOSED = 3.0


def settings_of(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here: apt-get install systemd")
    return program


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as if the agent were installed where this Python is, with its drop-in."""
    unit = tmp_path / UNIT.name
    programs = Path(sys.executable).parent
    unit.write_text(UNIT.read_text().replace("/opt/tidelog/bin/", f"{programs}/"))
    drop_ins = tmp_path / f"{UNIT.name}.d"
    drop_ins.mkdir()
    shutil.copy(DIRECTORY, drop_ins)
    return unit


def test_systemd_finds_nothing_wrong(systemd_analyze: str, installed: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", installed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_exposes_little(systemd_analyze: str, installed: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--no-pager", installed],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= MOST_EXPOSED, done.stdout


class Supervisor:
    """Hears what a service tells systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hears(self, word: str, *, within_s: float = 20.0) -> None:
        """Raises `TimeoutError` when nothing is said for so long."""
        self._socket.settimeout(within_s)
        while word not in self.heard:
            self.heard += self._socket.recv(4096).decode().splitlines()

    def forget(self) -> None:
        """All that was said until now."""
        self._socket.settimeout(0.1)
        try:
            while self._socket.recv(4096):
                continue
        except TimeoutError:
            self.heard.clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path / "notify")
    yield found
    found.close()


def as_the_unit_says(tmp_path: Path, uri: str) -> dict[str, str]:
    """The environment of the unit, with the credential in place."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    settings = settings_of(UNIT)
    ((name, _),) = [line.split(":") for line in settings["LoadCredential"]]
    (credentials / name).write_text(f"{uri}\n")
    chosen = {"TIDELOG_MONGODB_URI": ""}
    for line in settings["Environment"]:
        variable, _, value = line.replace("%d", str(credentials)).partition("=")
        chosen[variable] = value
    return chosen


NO_WRITABLE_CODE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, as MemoryDenyWriteExecute= means it
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def without_writable_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents are started as `MemoryDenyWriteExecute=` wants it, where the kernel can (6.3)."""
    assert settings_of(UNIT)["MemoryDenyWriteExecute"] == ["yes"]
    prefix = [sys.executable, "-c", NO_WRITABLE_CODE]
    if subprocess.run([*prefix, sys.executable, "-c", ""], check=False).returncode == 77:
        return

    def command_of(program: str) -> list[str]:
        return [*prefix, sys.executable, "-m", program]

    monkeypatch.setattr("tests.support.agents.command_of", command_of)


def example_environment() -> dict[str, str]:
    """The example file with every line of it in force."""
    return dict(
        line.removeprefix("# ").split("=", 1)
        for line in ENVIRONMENT.read_text().splitlines()
        if re.match(r"# [A-Z_]+=", line)
    )


def test_an_agent_under_the_unit_says_ready_and_alive_and_stopping(
    one_node: ReplicaSet, tmp_path: Path, supervisor: Supervisor, without_writable_code: None
) -> None:
    settings = settings_of(UNIT)
    assert settings["Type"] == ["notify"]
    uri = one_node.uri_of(one_node.data_nodes[0])
    extra = example_environment() | as_the_unit_says(tmp_path, uri)
    extra["TIDELOG_LISTEN"] = f"127.0.0.1:{free_port()}"  # never other than loopback in tests
    assert "TIDELOG_LOG__LEVEL" in extra
    extra |= {"NOTIFY_SOCKET": str(supervisor.path), "WATCHDOG_USEC": "600000"}
    program, *arguments = settings["ExecStart"][0].split()
    assert program == "/opt/tidelog/bin/tidelog-agent"
    (tmp_path / "repository").mkdir()
    one_node.client().shop.orders.insert_many([{"_id": number} for number in range(1000)])
    with Agents(one_node, extra=extra, arguments=arguments) as agents:
        (agent,) = agents.all
        supervisor.hears("READY=1")
        for _ in range(3):
            supervisor.heard.clear()
            supervisor.hears("WATCHDOG=1")
        ctl = Ctl(one_node.uri())
        ctl.configure_filesystem(tmp_path / "repository")
        name = ctl.ok("backup", "--wait")["name"]
        assert ctl.ok("restore", name, "-y", "--wait")["status"] == "done"

        agent.pause()
        supervisor.forget()
        with pytest.raises(TimeoutError):
            supervisor.hears("WATCHDOG=1", within_s=1.0)
        agent.resume()
        supervisor.hears("WATCHDOG=1")

        agent.ask_to_stop()
        supervisor.hears("STOPPING=1")
        assert agent.wait_ended() == 0
        assert "Traceback" not in agent.log_text()


@pytest.fixture(scope="module")
def compose() -> list[str]:
    found = importlib.util.find_spec("compose")
    assert found is not None
    assert found.origin is not None
    return [str(Path(found.origin).with_name("docker-compose")), "-f", str(COMPOSE)]


def test_compose_takes_the_file_without_a_word(compose: list[str]) -> None:
    done = subprocess.run(
        [*compose, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def services(compose: list[str]) -> dict[str, Any]:
    told = subprocess.run([*compose, "config"], capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = yaml.safe_load(told)["services"]
    return found


def agents_of(services: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in services.items() if name.startswith("agent-")}


def test_compose_has_a_sharded_cluster_with_an_agent_beside_each_node(
    services: dict[str, Any],
) -> None:
    commands = {name: service.get("command") or [] for name, service in services.items()}
    nodes = {name: one for name, one in commands.items() if one[:1] == ["mongod"]}
    roles = [
        flag for one in nodes.values() for flag in one if flag in ("--configsvr", "--shardsvr")
    ]
    assert (roles.count("--configsvr"), roles.count("--shardsvr")) == (1, 4)
    uris = [one["environment"]["TIDELOG_MONGODB_URI"] for one in agents_of(services).values()]
    assert sorted(uris) == sorted(f"mongodb://{name}:27017/" for name in nodes)
    replsets = {one[one.index("--replSet") + 1] for one in nodes.values()}
    script = str(commands["replsets"]) + str(commands["initiate"])
    assert all(f"{name}" in script for name in (*replsets, *nodes))


def test_the_settings_of_compose_parse_and_lead_to_its_s3_server(
    services: dict[str, Any],
) -> None:
    document = yaml.safe_load((ROOT / "deploy" / "compose" / "tidelog.yaml").read_text())
    settings = from_mapping(document)
    assert settings.storage is not None
    assert settings.storage.s3 is not None
    s3 = services["s3"]
    assert settings.storage.s3.endpoint_url == "http://s3:8333"
    assert f"-bucket={settings.storage.s3.bucket}" in s3["command"]
    written = document["storage"]["s3"]["credentials"]
    for agent in agents_of(services).values():
        own = agent["environment"]
        assert own[written["access-key-id"]["env"]] == s3["environment"]["AWS_ACCESS_KEY_ID"]
        secret = own[written["secret-access-key"]["env"]]
        assert secret == s3["environment"]["AWS_SECRET_ACCESS_KEY"]


def test_prometheus_of_compose_scrapes_every_agent_with_their_token(
    services: dict[str, Any],
) -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "tidelog"
    (group,) = job["static_configs"]
    agents = agents_of(services)
    assert sorted(group["targets"]) == sorted(f"{name}:9360" for name in agents)
    (token,) = services["prometheus"]["configs"]
    assert token["target"] == job["authorization"]["credentials_file"]
    for agent in agents.values():
        assert agent["environment"]["TIDELOG_LISTEN"] == "0.0.0.0:9360"
        (own,) = agent["configs"]
        assert own["source"] == token["source"]
        assert agent["environment"]["TIDELOG_WEB__TOKEN_FILE"] == f"/{own['source']}"


def test_the_example_environment_shows_what_is_served() -> None:
    found = example_environment()
    config = load(None, {**found, "TIDELOG_MONGODB_URI": "mongodb://db1/"})
    assert config.listen_address()[0] not in ("127.0.0.1", "localhost")
    token = found["TIDELOG_WEB__TOKEN_FILE"]
    assert token in (ROOT / "docs" / "security.md").read_text()


def test_the_dockerfile_copies_what_exists_and_starts_what_is_installed() -> None:
    text = DOCKERFILE.read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)
    assert f"\n{entry} = " in (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^USER \d+$", text, re.MULTILINE), "never root"

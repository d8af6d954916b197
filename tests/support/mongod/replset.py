"""A replica set on loopback ports, for as long as its context lasts."""

from __future__ import annotations

import asyncio
import datetime
import signal
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.support.eventually import eventually
from tests.support.mongod.binary import find_mongod
from tests.support.mongod.certificates import Certificates
from tests.support.mongod.node import MongodNode
from tests.support.mongod.options import Member, SetOptions, server_arguments
from tests.support.reaper import REAPER

Client = MongoClient[dict[str, Any]]

_HEALTHY = {1, 2, 7}  # PRIMARY, SECONDARY, ARBITER
_LAG = datetime.timedelta(seconds=2)


class ReplicaSet:
    """Real servers in one replica set; `ReplicaSet(3)`, or `ReplicaSet(SetOptions(…))` for more.

    Its methods block: from a coroutine that shares the loop with what is tested, call the slow ones
    (`step_down`, `stop`, `wait_healthy`) through `asyncio.to_thread`.
    """

    def __init__(self, nodes: int | SetOptions = 1) -> None:
        if isinstance(nodes, int):
            nodes = SetOptions(members=(Member(),) * nodes)
        self.options = nodes
        self.nodes: list[MongodNode] = []
        self.certificates: Certificates | None = None
        self._clients: list[Client] = []
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.options.name

    @property
    def data_nodes(self) -> list[MongodNode]:
        """The nodes beside which an agent runs."""
        return [node for node in self.nodes if node.holds_data]

    def uri(self) -> str:
        """A connection string for the whole set."""
        hosts = ",".join(node.host for node in self.data_nodes)
        return self._uri(hosts, {"replicaSet": self.name})

    def uri_of(self, node: MongodNode) -> str:
        """A connection string for this node and no other."""
        return self._uri(node.host, {"directConnection": "true"})

    def x509_uri(self, node: MongodNode | None = None) -> str:
        """A connection string whose login is the client certificate; of one node if given."""
        assert self.certificates is not None, "this set has no TLS"
        hosts = ",".join(one.host for one in ([node] if node else self.data_nodes))
        options = {"directConnection": "true"} if node else {"replicaSet": self.name}
        options |= {"authMechanism": "MONGODB-X509", "authSource": "$external"}
        options["tlsCertificateKeyFile"] = str(self.certificates.client)
        return self._uri(hosts, options, login=False)

    def client(self) -> Client:
        """The set's own client; it lives as long as the set."""
        if self._client is None:
            self._client = self.connect(self.uri())
        return self._client

    def connect(self, uri: str, **options: Any) -> Client:
        """A further client, closed with the set at the latest."""
        options = {"serverSelectionTimeoutMS": 20_000, "appname": "tests", **options}
        client: Client = MongoClient(uri, **options)
        self._clients.append(client)
        return client

    def node_status(self, node: MongodNode) -> dict[str, Any]:
        """The node's own answer to `hello`; fails when it does not answer soon."""
        with MongoClient[dict[str, Any]](
            self._uri(node.host, {"directConnection": "true"}, login=False),
            serverSelectionTimeoutMS=1_000,
            socketTimeoutMS=2_000,
        ) as client:
            return dict(client.admin.command("hello"))

    def primary(self, within_s: float = 20.0) -> MongodNode:
        """The node that is primary now, waiting for one if there is none."""

        def ask() -> MongodNode | None:
            return next((node for node in self.data_nodes if self._claims_primary(node)), None)

        found = eventually(ask, within_s, every_s=0.05, describe=self.log_tails)
        assert found is not None
        return found

    def secondaries(self) -> list[MongodNode]:
        """Running nodes with data that are not primary."""
        primary = self.primary()
        return [node for node in self.data_nodes if node.is_running and node is not primary]

    def step_down(self, seconds: int = 10) -> MongodNode:
        """Make the primary step down, and return the new one."""
        old = self.primary()
        with MongoClient[dict[str, Any]](
            self.uri_of(old), serverSelectionTimeoutMS=5_000
        ) as client:
            command = {"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 5, "force": True}
            client.admin.command(command)
        return self.primary()

    def kill(self, node: MongodNode, number: signal.Signals = signal.SIGKILL) -> None:
        """End a node by a signal."""
        node.kill(number)

    def stop(self, node: MongodNode) -> None:
        """Stop a node cleanly."""
        node.stop()

    def start(self, node: MongodNode) -> None:
        """Start a node again that was stopped or killed."""
        node.start()

    def pause(self, node: MongodNode) -> None:
        """SIGSTOP."""
        node.pause()

    def resume(self, node: MongodNode) -> None:
        """SIGCONT."""
        node.resume()

    def wait_healthy(self, within_s: float = 30.0) -> None:
        """Wait until there is a primary and every running member is in its place and caught up."""

        def ask() -> bool:
            status = self.client().admin.command("replSetGetStatus")
            running = {node.host for node in self.nodes if node.is_running}
            members = [member for member in status["members"] if member["name"] in running]
            optimes = [member["optimeDate"] for member in members if member["state"] in (1, 2)]
            assert all(member["state"] in _HEALTHY for member in members), members
            assert any(member["state"] == 1 for member in members), members
            assert max(optimes) - min(optimes) < _LAG or self._has_delayed, members
            return True

        eventually(ask, within_s, retry_on=(AssertionError, PyMongoError), describe=self.log_tails)

    def log_tails(self) -> str:
        """The end of every node's log."""
        return "\n".join(f"--- {node!r}\n{node.log_tail(6)}" for node in self.nodes)

    def close(self) -> None:
        """Close the clients, kill the servers, remove their data."""
        for client in self._clients:
            _discard(client)
        self._clients.clear()
        self._client = None
        for node in self.nodes:
            node.kill()
        if self.nodes:
            REAPER.remove_directory(self.nodes[0].directory.parent)
        self.nodes = []

    @property
    def _has_delayed(self) -> bool:
        return any(node.member.delay_s for node in self.nodes)

    def _open(self) -> None:
        program = find_mongod()
        directory = REAPER.make_directory("tidelog-mongod-")
        keyfile = self.options.auth.write_key(directory) if self.options.auth else None
        self.certificates = Certificates.create(directory) if self.options.tls else None
        arguments = server_arguments(self.options, keyfile, self.certificates)
        for index, member in enumerate(self.options.members):
            home = directory / f"node{index}"
            home.mkdir()
            machine = self.options.machine()
            self.nodes.append(MongodNode(program, home, arguments, member, machine))
            self.nodes[-1].spawn()
        for node in self.nodes:
            node.wait_listening(may_move=True)
        # A member that does not answer yet makes replSetInitiate fail with NodeNotFound.
        for node in self.nodes:
            eventually(
                lambda node=node: self.node_status(node),  # type: ignore[misc]  # bound early
                retry_on=(PyMongoError,),
                describe=self.log_tails,
            )
        self._initiate()
        eventually(self._all_in_place, 30.0, every_s=0.05, describe=self.log_tails)

    def _initiate(self) -> None:
        first = max(self.data_nodes, key=lambda node: node.member.config(0, "")["priority"])
        config: dict[str, Any] = {
            "_id": self.name,
            "members": [node.member.config(i, node.host) for i, node in enumerate(self.nodes)],
            "settings": {
                "electionTimeoutMillis": self.options.election_timeout_ms,
                "heartbeatIntervalMillis": 500,
                # Else it is chance who copies from whom, and with it which of two equals is chosen.
                "chainingAllowed": False,
            },
        }
        if self.options.cluster_role == "configsvr":
            config["configsvr"] = True
        uri = self._uri(first.host, {"directConnection": "true"}, login=False)
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=10_000) as client:
            client.admin.command("replSetInitiate", config)
            eventually(lambda: self._claims_primary(first), 20.0, describe=self.log_tails)
            if self.options.auth is not None:
                # Allowed without a login only here: from the loopback, while there is no user.
                client.admin.command(
                    "createUser",
                    self.options.auth.user,
                    pwd=self.options.auth.password,
                    roles=["root", "__system"],
                )

    def _all_in_place(self) -> bool:
        for node in self.nodes:
            hello = self.node_status(node)
            if not (hello["isWritablePrimary"] or hello["secondary"] or "arbiterOnly" in hello):
                return False
        return True

    def _claims_primary(self, node: MongodNode) -> bool:
        if not node.is_running:
            return False
        try:
            return bool(self.node_status(node)["isWritablePrimary"])
        except PyMongoError:
            return False

    def _uri(self, hosts: str, options: dict[str, str], *, login: bool = True) -> str:
        credentials = ""
        if self.options.auth is not None and login:
            credentials = self.options.auth.credentials
            options = {**options, "authSource": "admin"}
        if self.certificates is not None:
            options = {**options, "tls": "true", "tlsCAFile": str(self.certificates.ca)}
            if self.options.tls_demands_certificates:
                options["tlsCertificateKeyFile"] = str(self.certificates.client)
        return f"mongodb://{credentials}{hosts}/?{urlencode(options)}"


def _discard(client: Client) -> None:
    # `close` ends the pooled sessions on the server, and would look for a dead one for 20 s.
    topology = getattr(client, "_topology", None)
    if topology is not None:
        topology.pop_all_sessions()
    client.close()

"""The one mongod an agent serves, over a direct connection.

`direct` talks to this node whatever it is at the moment (reading, status, restores), beside it one
client for what may take days; `replset_client` follows the primary of the same replica set (oplog
notes). Everything that comes out is either plain values or raw BSON; every call has a deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import ConfigurationError
from pymongo.uri_parser import parse_uri as driver_parse_uri

from agent.errors import ConfigError, NodeUnavailable
from agent.mongo.clients import (
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    LONG_TIMEOUT_S,
    Client,
    in_ms,
    open_client,
    readable,
)
from agent.mongo.sessions import Sessions
from agent.mongo.translate import translated
from agent.store.connection import close_client, explained, parse_uri
from agent.wire.ids import NodeId, node_id
from agent.wire.nodes import Role
from agent.wire.optime import OpTime
from agent.wire.topology import topology_of

Document = dict[str, Any]
Database = AsyncIOMotorDatabase[Document]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself."""

    replset: str
    host: str
    role: Role
    is_primary: bool
    last_applied: OpTime
    majority: OpTime
    """The newest OpTime this node knows to be majority-committed."""
    cluster_time: OpTime
    is_config: bool
    """Whether it is a config server of a sharded cluster."""
    gossip: Document
    """`$clusterTime` as the node answered it, signed: what another replica set may be told."""

    @property
    def lag_s(self) -> float:
        """How far this node is behind the newest cluster time it has heard of, in seconds."""
        return 0.0 if self.is_primary else float(max(0, self.cluster_time.T - self.last_applied.T))


def check_uri(uri: str) -> None:
    """Raises `ConfigError` for a connection string that cannot name one node."""
    if uri.startswith("mongodb+srv://"):
        raise ConfigError(
            "mongodb+srv:// names a whole cluster, and an agent serves one node",
            hint="give mongodb://user:password@host:port of the node on this machine",
        )
    hosts = parse_uri(uri).hosts
    with readable():
        driver_parse_uri(uri, validate=True, warn=False)
    if len(hosts) != 1:
        raise ConfigError(
            f"the connection string names {len(hosts)} hosts, and an agent serves one node",
            hint="give the host and port of the node on this machine",
        )


class Node:
    """An open connection to one data-bearing member of a replica set."""

    def __init__(self, uri: str, direct: Client, replset_client: Client, hello: Hello) -> None:
        self.uri = uri
        self.direct = direct
        self._retired: Client | None = None
        """The direct client before this one, which others may still be reading with."""
        self._patient: Client | None = None
        """For what may take as long as `LONG_TIMEOUT_S`."""
        self.replset_client = replset_client
        self.sessions = Sessions()
        """Of `direct`, for reading."""
        self.host = hello.host
        self.replset = hello.replset
        self.mongodb_version = ""
        self.fcv = ""
        self.cluster_id = ""
        self.is_config = hello.is_config
        self.shard: str | None = None
        """The name of the shard that the replica set is; None where it is none."""

    @property
    def id(self) -> NodeId:
        """`<replset>/<host>:<port>`."""
        return node_id(self.replset, self.host)

    @classmethod
    async def open(cls, uri: str) -> Node:
        """Connect and learn who the node is. Raises `ConfigError` for what an agent cannot serve
        (mongos, standalone, arbiter), `NodeUnavailable` when it does not answer."""
        check_uri(uri)
        hello = await _first_hello(uri)
        direct = open_client(uri, directConnection=True)
        try:
            replset_client = open_client(uri, directConnection=False, replicaSet=hello.replset)
            node = cls(uri, direct, replset_client, hello)
            try:
                await node._learn()
            except BaseException:
                close_client(replset_client)
                raise
        except BaseException:
            close_client(direct)
            raise
        return node

    @property
    def is_sharded(self) -> bool:
        """Whether the replica set belongs to a sharded cluster."""
        return self.is_config or self.shard is not None

    async def read_shard(self) -> str | None:
        """The name of the shard that the replica set is now. Config servers bear an identity as
        shards since MongoDB 7 whether they are one or not: what counts is that they are listed."""
        if self.is_config:
            with translated("reading whether the config servers are a shard"):
                reply = await self.command(
                    "config", {"find": "shards", "filter": {"_id": "config"}}
                )
            return topology_of(self.replset, reply["cursor"]["firstBatch"]).members[0].shard
        query = {"find": "system.version", "filter": {"_id": "shardIdentity"}, "limit": 1}
        with translated("reading the shard identity"):
            rows = (await self.command("admin", query))["cursor"]["firstBatch"]
        return str(rows[0]["shardName"]) if rows else None

    async def _learn(self) -> None:
        await self.read_versions()
        with translated(f"connecting to {self.host}"):
            config = await self.command("admin", {"replSetGetConfig": 1})
            self.cluster_id = str(config["config"]["settings"]["replicaSetId"])
        self.shard = await self.read_shard()

    async def read_versions(self) -> None:
        """What `mongodb_version` and `fcv` are from now on: the server may have been upgraded, or
        told to be compatible with another version, since they were last read."""
        with translated(f"asking {self.host} for its version"):
            build = await self.command("admin", {"buildInfo": 1})
            parameter = await self.command(
                "admin", {"getParameter": 1, "featureCompatibilityVersion": 1}
            )
        self.mongodb_version = str(build["version"])
        self.fcv = str(parameter["featureCompatibilityVersion"]["version"])

    async def aclose(self) -> None:
        """Close all clients."""
        await self.sessions.aclose()
        if self._retired is not None:
            close_client(self._retired)
        if self._patient is not None:
            close_client(self._patient)
        close_client(self.direct)
        close_client(self.replset_client)

    async def command(
        self,
        database: str,
        command: Document,
        *,
        on_primary: bool = False,
        timeout_s: float | None = CALL_TIMEOUT_S,
        session: Any = None,
        codec_options: CodecOptions[Any] | None = None,
    ) -> Any:
        """Run a command on this node (or on its primary), with a server-side deadline in seconds
        where `timeout_s` is given. With `LONG_TIMEOUT_S` the socket waits as long; that is for one
        command to this node, in no session. The reply is a dict, or what `codec_options` makes of
        it. Raises driver errors: callers wrap in `translated` with what they were doing."""
        client = self.replset_client if on_primary else self.direct
        if timeout_s == LONG_TIMEOUT_S:
            client = self._patient_client()
        if timeout_s is not None and "getMore" not in command:
            command = {**command, "maxTimeMS": in_ms(timeout_s)}
        target: Database = client[database]
        try:
            if codec_options is None:
                return await target.command(command, session=session)
            return await target.command(command, session=session, codec_options=codec_options)
        except ConfigurationError:
            if client is self.direct:
                self._renew()
            raise

    def _patient_client(self) -> Client:
        """Made when it is wanted first. Not `pymongo.timeout`: with it the driver waits as long for
        a server that is not there, in a thread that nobody can cancel, and when the server is back
        sends what nobody waits for any more."""
        if self._patient is None:
            self._patient = open_client(
                self.uri, directConnection=True, socketTimeoutMS=in_ms(LONG_TIMEOUT_S)
            )
        return self._patient

    def _renew(self) -> None:
        """Connect anew. A connection that was made while the node started or recovered knows no
        sessions, says the driver, for as long as it lives and whatever the node is by then."""
        if self._retired is not None:
            close_client(self._retired)
        self._retired, self.direct = self.direct, open_client(self.uri, directConnection=True)

    async def hello(self) -> Hello:
        """Ask the node who and where it is now. Raises `NodeUnavailable`."""
        with translated(f"asking {self.host} for its state"):
            return _hello(await self.command("admin", {"hello": 1}, timeout_s=CONNECT_TIMEOUT_S))

    async def lag_s(self) -> float:
        """How far it is behind its primary. Raises `NodeUnavailable`."""
        return (await self.hello()).lag_s

    async def status(self) -> tuple[Role, float, str]:
        """Role, lag in seconds and MongoDB version, for the heartbeat."""
        hello = await self.hello()
        return hello.role, hello.lag_s, self.mongodb_version

    async def copied_by(self) -> int:
        """How many members of the replica set copy the oplog from this node. Raises
        `PermissionDenied` without `replSetGetStatus`, `NodeUnavailable`."""
        with translated(f"asking {self.host} who copies from it"):
            reply = await self.command(
                "admin", {"replSetGetStatus": 1}, timeout_s=CONNECT_TIMEOUT_S
            )
        sources = [member.get("syncSourceHost") for member in reply["members"]]
        return sources.count(self.host)

    async def data_members(self) -> int:
        """How many members of the replica set have data. Raises `NodeUnavailable`."""
        with translated("reading the members of the replica set"):
            reply = await self.command("admin", {"replSetGetConfig": 1})
        return sum(not member.get("arbiterOnly") for member in reply["config"]["members"])

    async def rollback_id(self) -> int:
        """Rises each time this node rolls writes back; reading across a rise is void."""
        with translated("reading the rollback id"):
            return int((await self.command("admin", {"replSetGetRBID": 1}))["rbid"])

    async def note(self, text: str, *, after: Document | None = None) -> OpTime:
        """Append a no-op to the oplog through the primary, wait for the majority, and return an
        OpTime at or after it. Moves an idle replica set's majority OpTime on; past the
        `$clusterTime` that another replica set answered, if `after` is given."""
        with translated("appending an oplog note"):
            async with await self.replset_client.start_session(causal_consistency=False) as session:
                if after is not None:
                    session.advance_cluster_time(after)
                reply = await self.command(
                    "admin",
                    {
                        "appendOplogNote": 1,
                        "data": {"tidelog": text},
                        "writeConcern": {"w": "majority", "wtimeout": in_ms(CALL_TIMEOUT_S)},
                    },
                    on_primary=True,
                    session=session,
                )
        return OpTime.of(reply["operationTime"])

    async def committed(self) -> OpTime:
        """The newest OpTime that a majority has, as this node knows. Raises `NodeUnavailable` where
        it has just started and knows none."""
        found = (await self.hello()).majority
        if not found.T:
            raise NodeUnavailable(f"{self.host} does not know yet what a majority has")
        return found

    async def wait_majority(self, optime: OpTime, *, timeout_s: float) -> Hello:
        """Wait until this node knows `optime` to be majority-committed; answers what it said then.
        Raises `NodeUnavailable` when what is committed has not moved for `timeout_s`: a majority
        that is far behind is waited for as long as it comes nearer."""
        reached = OpTime(T=0, I=0)
        try:
            async with asyncio.timeout(timeout_s) as limit:
                while (hello := await self.hello()).majority < optime:
                    if hello.majority > reached:
                        reached = hello.majority
                        limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NodeUnavailable(
                f"{self.host} did not see {optime} committed: for {timeout_s:.0f} s nothing was",
                hint="check replication lag and that a majority of the replica set is up",
            ) from None
        return hello


async def _first_hello(uri: str) -> Hello:
    # Without a login: an arbiter has no users, and should be told from a wrong password.
    parsed = parse_uri(uri)
    client = open_client(parsed.text(login=False), directConnection=True)
    try:
        with translated(f"connecting to {parsed}"):
            reply = await client.admin.command("hello", maxTimeMS=in_ms(CONNECT_TIMEOUT_S))
    except NodeUnavailable as error:
        raise explained(error, parsed) from error.__cause__
    finally:
        close_client(client)
    return _hello(reply)


def _hello(reply: Document) -> Hello:
    if reply.get("msg") == "isdbgrid":
        raise ConfigError(
            "this is a mongos, and an agent serves a mongod",
            hint="run an agent beside each mongod of the shards and config servers",
        )
    if reply.get("isreplicaset"):  # the server's word for: one without a configuration
        raise NodeUnavailable(
            "this mongod is a member of no replica set: not initiated yet, or removed from it",
            hint="run rs.initiate() or rs.add(); the agent waits for it",
        )
    if "setName" not in reply:
        raise ConfigError(
            "this mongod is a standalone: without an oplog there is nothing to make a backup "
            "consistent",
            hint="start it with --replSet and run rs.initiate()",
        )
    if reply.get("arbiterOnly"):
        raise ConfigError(
            f"{reply.get('me')} is an arbiter and holds no data",
            hint="run agents beside the data-bearing members only",
        )
    last_write = reply.get("lastWrite", {})
    cluster_time = reply.get("$clusterTime", {}).get("clusterTime", Timestamp(0, 0))
    return Hello(
        replset=reply["setName"],
        host=reply["me"],
        role=_role(reply),
        is_primary=bool(reply.get("isWritablePrimary")),
        last_applied=_optime(last_write.get("opTime")),
        majority=_optime(last_write.get("majorityOpTime")),
        cluster_time=OpTime.of(cluster_time),
        is_config="configsvr" in reply,
        gossip=dict(reply.get("$clusterTime", {})),
    )


def _optime(value: Document | None) -> OpTime:
    return OpTime.of(value["ts"]) if value else OpTime(T=0, I=0)


def _role(reply: Document) -> Role:
    if reply.get("isWritablePrimary"):
        return Role.PRIMARY
    if not reply.get("secondary"):
        return Role.STARTUP
    if reply.get("secondaryDelaySecs"):
        return Role.DELAYED
    return Role.HIDDEN if reply.get("hidden") else Role.SECONDARY

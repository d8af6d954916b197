"""The way to the control database: the `admin` database of the lead replica set.

The lead replica set is found from any member of any replica set of the cluster: the member says to
which set it belongs, and a shard knows its config servers. Credentials and TLS options of the given
connection string are used for both. Writes wait for the majority with a deadline, reads go to the
primary at read concern majority. No message ever holds a password.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from agent.errors import ConfigError, StoreUnavailable, TidelogError, Transient
from agent.store.translate import brief, translated
from agent.wire.collections import DATABASE
from agent.wire.optime import OpTime

__all__ = [
    "Control",
    "brief",
    "close_client",
    "explained",
    "open_control",
    "parse_uri",
    "translated",
]

OPEN_TIMEOUT_S: Final = 15.0
SELECTION_TIMEOUT_S: Final = 5.0
SOCKET_TIMEOUT_S: Final = 10.0
WRITE_TIMEOUT_S: Final = 8.0
CLOSE_TIMEOUT_S: Final = 1.0

Document = dict[str, Any]
Client = AsyncIOMotorClient[Document]
Collection = AsyncIOMotorCollection[Document]
_Lead = tuple[str, tuple[str, ...], bool]
"""The lead replica set's name and hosts, and whether it are config servers."""

_OWN_OPTIONS: Final = frozenset(
    {
        *("directconnection", "replicaset", "loadbalanced", "appname", "uuidrepresentation"),
        *("readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel"),
        *("w", "wtimeoutms", "wtimeout", "journal", "j", "retrywrites", "retryreads"),
        *("serverselectiontimeoutms", "sockettimeoutms", "connecttimeoutms", "timeoutms"),
        *("maxpoolsize", "minpoolsize", "tz_aware"),
    }
)
"""Options of a connection string that are ours to choose."""
_UNTRUSTED: Final = re.compile(r"certificate verify failed: (.*?) \(_ssl")
_TURNED_AWAY: Final = re.compile(r"connection closed|reset by peer|EOF occurred|alert")


@dataclass(frozen=True, slots=True)
class Uri:
    """A connection string in its parts. Its `str()` names hosts only."""

    credentials: str
    hosts: tuple[str, ...]
    database: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(unquote(host) for host in self.hosts)

    def __repr__(self) -> str:
        return f"Uri({self})"

    def option(self, name: str) -> str | None:
        """The value of an option, if it is given."""
        for written in self.options:
            key, _, value = written.partition("=")
            if key.lower() == name.lower():
                return value
        return None

    def text(self, hosts: tuple[str, ...] | None = None, *, login: bool = True) -> str:
        """The connection string for these hosts, without the options that are ours to choose."""
        options = [option for option in self.options if login or not _is_login(option)]
        credentials = self.credentials if login else ""
        where = ",".join(hosts or self.hosts)
        return f"mongodb://{credentials}{where}/{self.database}?{'&'.join(options)}"


def parse_uri(text: str) -> Uri:
    """Raises `ConfigError` for what is no connection string; never repeats the text."""
    hint = "write mongodb://user:password@host:port/?options"
    if text.startswith("mongodb+srv://"):
        raise ConfigError(
            "mongodb+srv:// connection strings are not supported",
            hint="write mongodb:// and the host and port of any member of any replica set",
        )
    scheme, found, rest = text.strip().partition("://")
    if not found or scheme != "mongodb":
        raise ConfigError("the connection string does not begin with mongodb://", hint=hint)
    # A password holds neither "/" nor "@" nor "?": they are percent-encoded.
    authority, _, tail = rest.partition("/")
    if "?" in authority:
        authority, _, query = authority.partition("?")
        tail = f"?{query}/{tail}"
    credentials, at, hosts = authority.rpartition("@")
    database, _, query = tail.partition("?")
    if "@" in credentials or "@" in tail:
        raise ConfigError(
            "user or password of the connection string hold a special character",
            hint="percent-encode it: @ is %40, : is %3A, / is %2F, ? is %3F, % is %25",
        )
    if not hosts.strip(","):
        raise ConfigError("the connection string names no host", hint=hint)
    options = tuple(option for option in query.replace(";", "&").split("&") if _is_kept(option))
    return Uri(credentials + at, tuple(filter(None, hosts.split(","))), database, options)


def _is_kept(option: str) -> bool:
    return bool(option) and option.partition("=")[0].lower() not in _OWN_OPTIONS


def _is_login(option: str) -> bool:
    return option.partition("=")[0].lower().startswith("auth")


def explained(error: Transient, uri: Uri) -> TidelogError:
    """The same failure to connect where TLS may be the cause, with what to do about it. The
    server turns clients away without a word, so what it wants can only be guessed."""
    untrusted = _UNTRUSTED.search(error.message)
    if untrusted is not None:
        return ConfigError(
            f"the certificate of {uri} is not accepted: {untrusted[1]}",
            hint="give the file of the authority that signed it as tlsCAFile=/path in the"
            " connection string, and the host name that the certificate is for",
        )
    if _TURNED_AWAY.search(error.message) is None:
        return error
    if uri.option("tls") != "true" and uri.option("ssl") != "true":
        hint = "if the server demands TLS, add tls=true&tlsCAFile=/path to the connection string"
    elif uri.option("tlsCertificateKeyFile") is None:
        hint = "if the server demands certificates of its clients, add tlsCertificateKeyFile=/path"
    else:
        hint = "check that the server accepts the authority that signed the client's certificate"
    return type(error)(error.message, hint=hint)


class Control:
    """An open connection to the control database."""

    def __init__(
        self, client: Client, replset: str, member: str, hosts: str, *, is_config: bool = False
    ) -> None:
        self.client = client
        self.replset = replset
        """The lead replica set."""
        self.member = member
        """The replica set of the member that the connection string names."""
        self.hosts = hosts
        """For messages."""
        self.is_config = is_config
        """Whether the lead replica set are the config servers of a sharded cluster."""
        self._database: AsyncIOMotorDatabase[Document] = client.get_database(
            DATABASE,
            codec_options=CodecOptions(
                tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_CLAMP
            ),
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=_ms(WRITE_TIMEOUT_S)),
        )

    @property
    def database(self) -> AsyncIOMotorDatabase[Document]:
        """`admin`, for commands."""
        return self._database

    def collection(self, name: str) -> Collection:
        """A control collection: majority writes with a deadline, majority reads of the primary."""
        return self._database[name]

    def loose(self, name: str) -> Collection:
        """The same collection for what may be lost: wake-ups and events. Writes wait for the
        primary alone, reads see what is not majority-committed yet."""
        return self._database[name].with_options(
            write_concern=WriteConcern(w=1), read_concern=ReadConcern("local")
        )

    async def now(self) -> OpTime:
        """The cluster's logical time."""
        with translated("asking for the cluster time"):
            reply = await self._database.command("ping")
        return OpTime.of(reply["$clusterTime"]["clusterTime"])

    async def read_cluster_id(self) -> str:
        """What identifies the cluster: the id that its lead replica set got when initiated."""
        with translated("reading the configuration of the lead replica set"):
            reply = await self._database.command("replSetGetConfig")
        return str(reply["config"]["settings"]["replicaSetId"])

    async def aclose(self) -> None:
        """Close the client. Idempotent."""
        close_client(self.client)


def close_client(client: Client) -> None:
    """Close a client. A server that is gone or hangs is given `CLOSE_TIMEOUT_S` to hear of the
    sessions that end: nothing else of this process goes on meanwhile."""
    with pymongo.timeout(CLOSE_TIMEOUT_S):
        client.close()


async def open_control(uri: str, *, app_name: str, timeout_s: float = OPEN_TIMEOUT_S) -> Control:
    """Connect to the lead replica set, found from any member that `uri` names.

    Raises `ConfigError` for a connection string that cannot do (mongodb+srv, mongos, standalone,
    arbiter), `PermissionDenied`, and `StoreUnavailable` when nothing answers within `timeout_s`.
    """
    parsed = parse_uri(uri)
    try:
        async with asyncio.timeout(timeout_s):
            own, (lead, hosts, is_config) = await _first_answer(parsed, app_name, timeout_s)
            client, shown = await _connect(parsed, lead, hosts, app_name)
            return Control(client, lead, own, shown, is_config=is_config)
    except TimeoutError:
        raise StoreUnavailable(
            f"the control database did not answer at {parsed} within {timeout_s:g} s"
        ) from None


async def _first_answer(parsed: Uri, app_name: str, timeout_s: float) -> tuple[str, _Lead]:
    """The replica set of the first host that can be used, and the lead that it knows. One that
    starts or recovers says hello, and is passed by as it cannot be read."""
    problem: TidelogError | None = None
    patience_s = min(SELECTION_TIMEOUT_S, timeout_s / (len(parsed.hosts) + 1))
    for host in parsed.hosts:
        try:
            hello = await _hello(parsed, host, app_name, patience_s)
            unfit = _unfit(host, hello)
            if unfit is None:
                return str(hello["setName"]), await _lead(parsed, host, hello, app_name)
            problem = unfit
        except StoreUnavailable as error:
            problem = problem or explained(error, parsed)
    assert problem is not None
    raise problem


async def _hello(parsed: Uri, host: str, app_name: str, patience_s: float) -> Document:
    # Without a login: an arbiter has no users, and should be told from a wrong password.
    action = f"connecting to {unquote(host)}"
    with translated(action):
        client = _client(
            parsed.text((host,), login=False),
            app_name,
            directConnection=True,
            serverSelectionTimeoutMS=_ms(patience_s),
        )
        try:
            return dict(await client.admin.command("hello"))
        finally:
            close_client(client)


def _unfit(host: str, hello: Document) -> ConfigError | None:
    """Why this host cannot do, if so."""
    name = unquote(host)
    if hello.get("msg") == "isdbgrid":
        return ConfigError(
            f"{name} is a mongos",
            hint="give a member of the config server replica set, or of any shard",
        )
    if "setName" not in hello:
        return ConfigError(
            f"{name} is a standalone mongod, or its replica set is not initiated",
            hint="start it with --replSet and run rs.initiate(): without an oplog there is no"
            " consistent backup",
        )
    if hello.get("arbiterOnly"):
        return ConfigError(
            f"{name} is an arbiter and holds no data",
            hint="give a data-bearing member of the replica set",
        )
    return None


async def _lead(parsed: Uri, member: str, hello: Document, app_name: str) -> _Lead:
    """As this member knows it."""
    own = tuple(hello.get("hosts", ())) + tuple(hello.get("passives", ()))
    if "configsvr" in hello:
        return hello["setName"], own, True
    with translated(f"reading the shard identity from {unquote(member)}"):
        client = _client(parsed.text((member,)), app_name, directConnection=True)
        try:
            identity = await client.admin["system.version"].find_one({"_id": "shardIdentity"})
        finally:
            close_client(client)
    if identity is None:
        return hello["setName"], own, False
    name, _, hosts = str(identity["configsvrConnectionString"]).partition("/")
    return name, tuple(hosts.split(",")), True


async def _connect(
    parsed: Uri, lead: str, hosts: tuple[str, ...], app_name: str
) -> tuple[Client, str]:
    shown = f"{lead}/{','.join(hosts)}"
    with translated(f"connecting to the lead replica set {shown}"):
        client = _client(parsed.text(hosts), app_name, directConnection=False, replicaSet=lead)
        try:
            await client.admin.command("ping")
        except BaseException:
            close_client(client)
            raise
    return client, shown


def _client(uri: str, app_name: str, **options: Any) -> Client:
    defaults: dict[str, Any] = {
        "appname": app_name,
        "serverSelectionTimeoutMS": _ms(SELECTION_TIMEOUT_S),
        "connectTimeoutMS": _ms(SELECTION_TIMEOUT_S),
        "socketTimeoutMS": _ms(SOCKET_TIMEOUT_S),
        "uuidRepresentation": "standard",
        "retryWrites": True,
        "retryReads": True,
        "maxPoolSize": 24,
    }
    try:
        return AsyncIOMotorClient(uri, **{**defaults, **options})
    except OSError as error:
        raise ConfigError(
            f"the connection string names a file that cannot be read: {error.filename}"
            f" ({error.strerror})",
        ) from None
    except ValueError:
        # The driver's text repeats what it could not read, and that may be a secret.
        raise ConfigError(
            "the connection string is wrong: a host, port or option cannot be read",
            hint="write mongodb://user:password@host:port/?options",
        ) from None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)

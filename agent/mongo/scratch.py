"""A mongod of our own: making it a replica set of one, and asking it whether its data are sound.

It is reached as `__system`, the user that the members of a set are to each other: the key file is
its password, so nothing of what is restored into it can lock us out, and no user has to be made.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bson import SON
from pymongo.errors import OperationFailure, PyMongoError

from agent.errors import NodeUnavailable
from agent.mongo.clients import LONG_TIMEOUT_S, open_client
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.store.connection import close_client

_POLL_S: Final = 0.1
_ALREADY_INITIATED: Final = 23


def scratch_uri(port: int, key: str) -> str:
    """The connection string of a mongod on loopback with this key (hexadecimal characters)."""
    login = f"__system:{key}@127.0.0.1:{port}"
    return f"mongodb://{login}/?authSource=local&authMechanism=SCRAM-SHA-256"


async def initiate(uri: str, replset: str, port: int, *, within_s: float) -> None:
    """Make a fresh mongod a replica set of one and wait until it takes writes. Raises
    `NodeUnavailable` beyond the deadline (seconds)."""
    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    config = {"_id": replset, "members": [member]}
    client = open_client(uri, directConnection=True)
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await client.admin.command({"replSetInitiate": config})
                    break
                except OperationFailure as error:
                    if error.code == _ALREADY_INITIATED:
                        break
                    raise
                except PyMongoError:  # it does not listen yet
                    await asyncio.sleep(_POLL_S)
            while not (await client.admin.command("hello")).get("isWritablePrimary"):
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise NodeUnavailable(
            f"the scratch mongod did not become primary within {within_s:g} s"
        ) from None
    except PyMongoError as error:
        raise NodeUnavailable(f"the scratch mongod cannot be initiated: {error}") from error
    finally:
        close_client(client)


async def index_ranges(node: Node) -> None:
    """What config servers have, and a server of our own has not: the index by which the ranges of
    one collection are read in their order."""
    with translated("indexing the routing tables"):
        index = {"key": SON([("uuid", 1), ("min", 1)]), "name": "uuid_1_min_1"}
        await node.command("config", SON([("createIndexes", "chunks"), ("indexes", [index])]))


async def validate(node: Node, database: str, collection: str) -> list[str]:
    """What the server's own `validate` finds wrong with a collection and its indexes; empty where
    it is sound. Takes as long as it takes."""
    with translated(f"validating {database}.{collection}"):
        command: Document = SON([("validate", collection), ("full", True)])
        reply = await node.command(database, command, timeout_s=LONG_TIMEOUT_S)
    found = [str(error) for error in reply.get("errors", ())]
    if not reply["valid"] and not found:
        found.append("it is not valid")
    return found


async def database_hash(node: Node, database: str) -> str:
    """The server's `dbHash` of a database: equal for equal documents in equal collections."""
    with translated(f"hashing {database}"):
        reply = await node.command(database, {"dbHash": 1}, timeout_s=LONG_TIMEOUT_S)
    return str(reply["md5"])

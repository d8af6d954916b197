"""Blocks of an upload that was given up, and how they are thrown away.

Azure keeps blocks that were staged and never committed for a week; they are invisible, and they
cost money. No request removes them, but committing none of them does; so an empty blob is
made of no block, under the condition that it replaces nothing, and deleted again. It has a content
type of its own, by which every verb of the driver knows that it is no object: a process that dies
between the two requests leaves nothing that anybody takes for one.
"""

from __future__ import annotations

from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import ContentSettings
from azure.storage.blob.aio import ContainerClient

from agent.errors import ObjectExists, ObjectNotFound
from agent.storage.azure.connection import Connection

DISCARDED: Final = "application/x-tidelog-discarded"

_LOOKS_FOR_LATE_S: Final = (0.05, 0.15, 0.5)


def is_discarded(properties: Any) -> bool:
    """Whether a blob is only there to be deleted; takes the SDK's properties of it."""
    settings = properties.content_settings
    return settings is not None and settings.content_type == DISCARDED


async def discard_blocks(connection: Connection, key: str) -> None:
    """Throw away all blocks staged under a key, unless it is an object: then there are none."""

    async def write(container: ContainerClient) -> str:
        blob = container.get_blob_client(connection.name(key))
        answer = await blob.commit_block_list(
            [],
            match_condition=MatchConditions.IfMissing,
            content_settings=ContentSettings(content_type=DISCARDED),
        )
        return str(answer["etag"])

    try:
        etag = await connection.attempts("put", key).run(
            lambda: connection.call("write", key, write)
        )
    except ObjectExists:
        return
    await delete_version(connection, key, etag)


async def discard_late_blocks(connection: Connection, key: str) -> None:
    """The same for blocks whose request was cut and is carried out only now."""

    async def staged(container: ContainerClient) -> bool:
        blob = container.get_blob_client(connection.name(key))
        _, uncommitted = await blob.get_block_list("uncommitted")
        return bool(uncommitted)

    for pause_s in _LOOKS_FOR_LATE_S:
        await connection.surroundings.clock.sleep(pause_s)
        try:
            found = await connection.call("read", key, staged)
        except ObjectNotFound:
            continue
        if found:
            await discard_blocks(connection, key)


async def delete_version(connection: Connection, key: str, etag: str) -> None:
    """Delete exactly this one."""

    async def delete(container: ContainerClient) -> None:
        blob = container.get_blob_client(connection.name(key))
        await blob.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

    try:
        await connection.attempts("put", key).run(lambda: connection.call("delete", key, delete))
    except (ObjectNotFound, ObjectExists):
        return  # somebody else did, or it is another one by now

"""All keys below a prefix, page by page. OSS lists in byte order and sees what was written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from agent.errors import StorageUnavailable
from agent.storage.base import ObjectInfo
from agent.storage.oss.connection import Connection

PAGE: Final = 1000


def parsed(body: bytes, what: str) -> ElementTree.Element:
    """An answer's XML. Raises `StorageUnavailable` for anything else."""
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise StorageUnavailable(f"{what}: the answer is no XML ({error})") from error


async def listed(
    connection: Connection, prefix: str, after: str | None
) -> AsyncIterator[ObjectInfo]:
    """See `agent.storage.base.Storage.list`."""
    root = connection.name("")
    query = {
        "list-type": "2",
        "prefix": connection.name(prefix),
        "max-keys": str(PAGE),
        "encoding-type": "url",
        **({"start-after": connection.name(after)} if after else {}),
    }
    while True:
        answer = await connection.call("GET", "list", prefix, query=query)
        page = parsed(answer.http_response.content, connection.cannot("list", prefix))
        for found in page.iterfind("Contents"):
            name = unquote(found.findtext("Key", ""))
            if not name.endswith("/"):  # markers that consoles make for folders
                yield ObjectInfo(name.removeprefix(root), int(found.findtext("Size", "0")))
        token = unquote(page.findtext("NextContinuationToken", ""))
        if page.findtext("IsTruncated") != "true" or not token:
            return
        query = {**query, "continuation-token": token}

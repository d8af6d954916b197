"""The uploads in parts of a bucket that are under way, or were left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from urllib.parse import unquote

from agent.storage.oss.connection import Connection
from agent.storage.oss.listing import parsed
from agent.storage.unfinished import Unfinished, age_s


class BucketUploads:
    """See `agent.storage.unfinished.Uploads`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def under_way(self) -> AsyncIterator[Unfinished]:
        """Those below our prefix."""
        query = {"uploads": "", "prefix": self._connection.name(""), "encoding-type": "url"}
        while True:
            answer = await self._connection.call("GET", "list", query=query)
            page = parsed(answer.http_response.content, self._connection.cannot("list", None))
            date = answer.headers.get("Date")
            for each in page.iterfind("Upload"):
                begun = datetime.fromisoformat(each.findtext("Initiated", ""))
                yield Unfinished(
                    unquote(each.findtext("Key", "")),
                    each.findtext("UploadId", ""),
                    age_s(begun, date),
                )
            if page.findtext("IsTruncated") != "true":
                return
            query |= {
                "key-marker": unquote(page.findtext("NextKeyMarker", "")),
                "upload-id-marker": page.findtext("NextUploadIdMarker", ""),
            }

    async def abort(self, upload: Unfinished) -> None:
        """AbortMultipartUpload. Raises `NoSuchUpload` where it has ended since."""
        await self._connection.call(
            "DELETE", "write", None, name=upload.name, query={"uploadId": upload.upload_id}
        )

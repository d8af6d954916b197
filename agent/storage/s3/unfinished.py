"""The uploads in parts of a bucket that are under way, or were left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent.storage.s3.connection import Connection
from agent.storage.unfinished import Unfinished, age_s


class BucketUploads:
    """See `agent.storage.unfinished.Uploads`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def under_way(self) -> AsyncIterator[Unfinished]:
        """Those below our prefix."""
        more: dict[str, Any] = {}
        while True:
            answer = await self._connection.call(
                "list_multipart_uploads", "list", None, Prefix=self._connection.name(""), **more
            )
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            for each in answer.get("Uploads", []):
                yield Unfinished(
                    str(each["Key"]), str(each["UploadId"]), age_s(each["Initiated"], date)
                )
            if not answer.get("IsTruncated"):
                return
            more = {
                "KeyMarker": answer["NextKeyMarker"],
                "UploadIdMarker": answer["NextUploadIdMarker"],
            }

    async def abort(self, upload: Unfinished) -> None:
        """AbortMultipartUpload. Raises `NoSuchUpload` where it has ended since."""
        await self._connection.call(
            "abort_multipart_upload", "write", None, Key=upload.name, UploadId=upload.upload_id
        )

"""The headers of what makes an object: PutObject and InitiateMultipartUpload."""

from __future__ import annotations

from typing import Final

from agent.storage.publishing import MARK
from agent.wire.storage_oss import OssSettings

CRC64: Final = "x-oss-hash-crc64ecma"
FORBID_OVERWRITE: Final = "x-oss-forbid-overwrite"
MARK_HEADER: Final = f"x-oss-meta-{MARK}"


def encryption(settings: OssSettings) -> dict[str, str]:
    """Of encryption by the server. Nothing is sent for what is not set: an empty key id would be
    another request than none, which asks for the default key."""
    asked = settings.server_side_encryption
    named = {
        "x-oss-server-side-encryption": asked.sse_algorithm,
        "x-oss-server-side-encryption-key-id": asked.kms_master_key_id,
        "x-oss-server-side-data-encryption": asked.kms_data_encryption,
    }
    return {name: value for name, value in named.items() if value is not None}


def new_object(settings: OssSettings, mark: str) -> dict[str, str]:
    """All of them."""
    storage_class = settings.storage_class
    return {
        "Content-Type": "application/octet-stream",
        MARK_HEADER: mark,
        **({"x-oss-storage-class": storage_class} if storage_class else {}),
        **encryption(settings),
    }

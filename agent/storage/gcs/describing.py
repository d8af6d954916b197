"""What a bucket of Google tells about itself, for `ctl storage check`.

The bucket's resource takes `storage.buckets.get`, which a backup does not need: where it is not
allowed, that is said.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from agent.errors import PermissionDenied, TidelogError
from agent.storage.describing import (
    NOT_BLOCKED,
    Description,
    skew_s,
    tls_in_words,
    worries,
)
from agent.storage.gcs.connection import Connection

_RIGHT: Final = "storage.buckets.get"
_DAY_S: Final = 86_400


async def describe(connection: Connection, probe: str) -> Description:
    """See `agent.storage.describing.Describing`."""
    bucket, told = await _bucket(connection)
    off_s = skew_s(connection.served_at)
    settings, choice = connection.settings, connection.choice
    role = f", as {choice.role}" if choice.role else ""
    public = told if bucket is None else _public(bucket)
    return Description(
        identity=await _identity(connection),
        credentials=f"{choice.link}{role}",
        tls=tls_in_words(
            connection.endpoint,
            is_unverified=settings.insecure_skip_tls_verify,
            has_authority=settings.endpoint_ca is not None,
        ),
        region=None if bucket is None else str(bucket.get("location", "")).lower() or None,
        clock_skew_s=off_s,
        versioning=told if bucket is None else _versioning(bucket),
        object_lock=told if bucket is None else _lock(bucket),
        encryption=await _encryption(connection, probe),
        public=public,
        warnings=worries(off_s, public),
    )


async def _bucket(connection: Connection) -> tuple[dict[str, Any] | None, str]:
    """The resource of the bucket, or why there is none."""
    path = f"/storage/v1/b/{quote(connection.settings.bucket)}"
    try:
        return await connection.call(("ask for the settings of", None), "GET", path), ""
    except PermissionDenied:
        return None, f"not allowed to ask ({_RIGHT})"
    except TidelogError:
        return None, "this server does not say"


async def _identity(connection: Connection) -> str:
    try:
        return await connection.identity()
    except TidelogError as error:
        return f"none: {error}"


def _versioning(bucket: dict[str, Any]) -> str:
    return "on" if bucket.get("versioning", {}).get("enabled") else "off"


def _lock(bucket: dict[str, Any]) -> str:
    """Of the whole bucket, or of each object."""
    policy = bucket.get("retentionPolicy")
    if policy:
        days = int(policy.get("retentionPeriod", 0)) / _DAY_S
        return f"on, {'locked' if policy.get('isLocked') else 'not locked'}, for {days:g} days"
    if bucket.get("objectRetention", {}).get("mode") == "Enabled":
        return "on, without a default"
    return "off"


def _public(bucket: dict[str, Any]) -> str | None:
    found = bucket.get("iamConfiguration", {}).get("publicAccessPrevention")
    if found is None:
        return None
    return "blocked" if found == "enforced" else NOT_BLOCKED


async def _encryption(connection: Connection, probe: str) -> str | None:
    """What encrypted the probe: it shows the default of the bucket, too."""
    try:
        found = await connection.call(("read", probe), "GET", connection.objects(probe))
    except TidelogError:
        return None  # the permissions tell why
    key = found.get("kmsKeyName")
    return f"with {key}" if key else "with keys of Google"

"""What a bucket of OSS tells about itself, for `ctl storage check`.

One request tells nearly everything (GetBucketInfo), one more the retention policy. Neither right is
needed for a backup: what is not allowed is said as such.
"""

from __future__ import annotations

from typing import Any, Final
from xml.etree import ElementTree

from agent.errors import ObjectNotFound, PermissionDenied, TidelogError
from agent.storage.describing import (
    NOT_BLOCKED,
    Description,
    asked,
    skew_s,
    tls_in_words,
    worries,
)
from agent.storage.oss.connection import Connection
from agent.storage.oss.listing import parsed

_INFO: Final = "oss:GetBucketInfo"
_STRENGTH: Final = {None: 0, "None": 0, "AES256": 1, "SM4": 1, "KMS": 2}
"""Of ways to encrypt: keys that one can take back are worth more than the service's own."""


async def describe(connection: Connection, probe: str) -> Description:
    """See `agent.storage.describing.Describing`."""
    probed = await _headers(connection, probe)
    bucket, told = await _bucket(connection)
    off_s = skew_s(probed.get("Date"))
    settings, choice = connection.settings, connection.choice
    role = f", role {choice.role}" if choice.role else ""
    public = told if bucket is None else _public(bucket)
    return Description(
        identity=await asked(connection.identity, "sts:GetCallerIdentity"),
        credentials=f"{choice.link}{role}",
        tls=tls_in_words(
            connection.endpoint,
            is_unverified=settings.insecure_skip_tls_verify,
            has_authority=settings.endpoint_ca is not None,
        ),
        region=connection.region if bucket is None else bucket.findtext("Location"),
        clock_skew_s=off_s,
        versioning=told if bucket is None else _versioning(bucket),
        object_lock=await asked(lambda: _worm(connection), "oss:GetBucketWorm"),
        encryption=_encryption(probed),
        public=public,
        warnings=(*worries(off_s, public), *_of_default(connection, bucket)),
    )


async def _headers(connection: Connection, probe: str) -> Any:
    try:
        answer = await connection.call("HEAD", "read", probe, name=connection.name(probe))
    except TidelogError:
        return {}  # the permissions tell why
    return answer.headers


async def _bucket(connection: Connection) -> tuple[ElementTree.Element | None, str]:
    """What GetBucketInfo says, or why it says nothing."""
    what = "ask for the settings of"
    try:
        answer = await connection.call("GET", what, query={"bucketInfo": ""})
        found = parsed(answer.http_response.content, connection.cannot(what, None)).find("Bucket")
    except PermissionDenied:
        return None, f"not allowed to ask ({_INFO})"
    except TidelogError:
        found = None
    return found, "this server does not say"


def _versioning(bucket: ElementTree.Element) -> str:
    status = bucket.findtext("Versioning")
    return {"Enabled": "on", "Suspended": "suspended"}.get(status or "", "off")


def _public(bucket: ElementTree.Element) -> str:
    if bucket.findtext("BlockPublicAccess") == "true":
        return "blocked"
    grant = bucket.findtext("AccessControlList/Grant") or "private"
    return "off: the ACL of the bucket is private" if grant == "private" else NOT_BLOCKED


async def _worm(connection: Connection) -> str:
    what = "ask for the retention policy of"
    try:
        answer = await connection.call("GET", what, query={"worm": ""})
    except ObjectNotFound:
        return "off"
    found = parsed(answer.http_response.content, connection.cannot(what, None))
    days, state = found.findtext("RetentionPeriodInDays"), found.findtext("State") or ""
    return f"on, {'locked' if state == 'Locked' else 'not locked'}, for {days} days"


def _encryption(probed: Any) -> str | None:
    """Of the probe: of the settings, or the default of the bucket."""
    algorithm = probed.get("x-oss-server-side-encryption")
    if not algorithm:
        return "none" if probed else None
    key = probed.get("x-oss-server-side-encryption-key-id")
    return f"{algorithm} with {key}" if key else str(algorithm)


def _of_default(connection: Connection, bucket: ElementTree.Element | None) -> tuple[str, ...]:
    """Objects that others write there would be less safe than ours."""
    wanted = connection.settings.server_side_encryption.sse_algorithm
    if bucket is None or wanted is None:
        return ()
    default = bucket.findtext("ServerSideEncryptionRule/SSEAlgorithm")
    if _STRENGTH.get(default, 1) >= _STRENGTH.get(wanted, 1):
        return ()
    return (f"the default of the bucket is {default or 'None'}, weaker than {wanted} here",)

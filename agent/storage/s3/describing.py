"""What a bucket and its credentials say of themselves, for `ctl storage check`.

Asks for more than backups need (the state of versioning, of the lock, …); what the credentials do
not allow is told as such and is no fault.
"""

from __future__ import annotations

from typing import Any, Final

from aiobotocore.config import AioConfig

from agent.errors import ObjectNotFound, TidelogError
from agent.storage.describing import (
    NOT_BLOCKED,
    Description,
    asked,
    skew_s,
    tls_in_words,
    worries,
)
from agent.storage.precedence import Link
from agent.storage.s3.connection import Connection
from agent.storage.s3.errors import VENDOR_ERRORS
from agent.storage.s3.sessions import new_session

_IDENTITY_TIMEOUT_S: Final = 5


async def describe(connection: Connection, probe: str) -> Description:
    """See `agent.storage.describing.Describing`."""
    bucket = await _bucket(connection)
    headers = {
        str(name).lower(): str(value)
        for name, value in bucket.get("ResponseMetadata", {}).get("HTTPHeaders", {}).items()
    }
    off_s = skew_s(headers.get("date"))
    choice = connection.choice
    role = f", role {choice.role}" if choice.role else ""
    settings = connection.settings
    public = await asked(lambda: _public(connection), "s3:GetBucketPublicAccessBlock")
    return Description(
        identity=await _identity(connection),
        credentials=f"{choice.link}{role}",
        tls=tls_in_words(
            settings.endpoint_url or "https://",
            is_unverified=settings.insecure_skip_tls_verify,
            has_authority=settings.endpoint_ca is not None,
        ),
        region=headers.get("x-amz-bucket-region") or bucket.get("BucketRegion"),
        clock_skew_s=off_s,
        versioning=await asked(lambda: _versioning(connection), "s3:GetBucketVersioning"),
        object_lock=await asked(lambda: _lock(connection), "s3:GetBucketObjectLockConfiguration"),
        encryption=await asked(lambda: _encryption(connection, probe), "s3:GetObject"),
        public=public,
        warnings=worries(off_s, public),
    )


async def _bucket(connection: Connection) -> dict[str, Any]:
    try:
        return await connection.call("head_bucket", "look at")
    except TidelogError:
        return {}  # what may not be looked at says nothing; the permissions tell of the rest


async def _identity(connection: Connection) -> str | None:
    """As whom STS knows the credentials; where there is no STS, the id of the access key."""
    settings = connection.settings
    try:
        keys = await connection.signer.get_frozen_credentials()
    except TidelogError as error:
        return f"none: {error}"
    plain = f"access key {keys.access_key}"
    if settings.endpoint_url and not settings.credentials.sts_endpoint_url:
        return plain
    try:
        async with new_session().create_client(
            "sts",
            region_name=settings.region or "us-east-1",
            endpoint_url=settings.credentials.sts_endpoint_url,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
            config=AioConfig(
                connect_timeout=_IDENTITY_TIMEOUT_S,
                read_timeout=_IDENTITY_TIMEOUT_S,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        ) as client:
            return str((await client.get_caller_identity())["Arn"])
    except VENDOR_ERRORS:
        is_session = connection.signer.choice.base is not Link.EXPLICIT
        return f"{plain} (of a session)" if is_session and keys.token else plain


async def _versioning(connection: Connection) -> str:
    answer = await connection.call("get_bucket_versioning", "ask for the versioning of")
    status = str(answer.get("Status") or "off").lower()
    return "on" if status == "enabled" else status


async def _lock(connection: Connection) -> str:
    try:
        answer = await connection.call("get_object_lock_configuration", "ask for the lock of")
    except ObjectNotFound:
        return "off"
    found = answer.get("ObjectLockConfiguration", {})
    rule = found.get("Rule", {}).get("DefaultRetention")
    if rule is None:
        return "on, without a default" if found.get("ObjectLockEnabled") else "off"
    span = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
    return f"on, {str(rule.get('Mode')).lower()} for {span}"


async def _encryption(connection: Connection, probe: str) -> str:
    answer = await connection.call(
        "head_object",
        "read",
        probe,
        Key=connection.name(probe),
        **connection.encryption.customer(),
    )
    if answer.get("SSECustomerAlgorithm"):
        return "a key of the settings (SSE-C)"
    algorithm = answer.get("ServerSideEncryption")
    if not algorithm:
        return "none"
    key = answer.get("SSEKMSKeyId")
    return f"{algorithm} with {key}" if key else str(algorithm)


async def _public(connection: Connection) -> str:
    try:
        answer = await connection.call("get_public_access_block", "ask for the access to")
    except ObjectNotFound:
        return NOT_BLOCKED
    rules = answer.get("PublicAccessBlockConfiguration", {})
    return "blocked" if rules and all(rules.values()) else NOT_BLOCKED

"""What a bucket and its credentials say of themselves, for `ctl storage check`.

Asks for more than backups need (the state of versioning, of the lock, …); what the credentials do
not allow is told as such and is no fault.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiobotocore.config import AioConfig

from agent.clock import host_time_s
from agent.errors import ObjectNotFound, TidelogError
from agent.storage.describing import Description, asked
from agent.storage.precedence import Link
from agent.storage.s3.connection import Connection
from agent.storage.s3.errors import VENDOR_ERRORS
from agent.storage.s3.manners import Manners, checksum
from agent.storage.s3.sessions import new_session

LARGEST_SKEW_S: Final = 60.0
"""A store refuses requests that are signed 15 minutes off."""
_IDENTITY_TIMEOUT_S: Final = 5
_PART: Final = b"tidelog probe, the first part"


async def describe(connection: Connection, probe: str) -> Description:
    """See `agent.storage.describing.Describing`."""
    bucket = await _bucket(connection)
    headers = {
        str(name).lower(): str(value)
        for name, value in bucket.get("ResponseMetadata", {}).get("HTTPHeaders", {}).items()
    }
    skew_s = _skew_s(headers.get("date"))
    choice = connection.signer.choice
    role = f", role {choice.role}" if choice.role else ""
    warnings = []
    if skew_s is not None and abs(skew_s) > LARGEST_SKEW_S:
        warnings.append(
            f"the clock of this host is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'};"
            " requests are refused from 15 minutes on"
        )
    public = await asked(lambda: _public(connection), "s3:GetBucketPublicAccessBlock")
    if public == "not blocked":
        warnings.append("public access to the bucket is not blocked")
    return Description(
        identity=await _identity(connection),
        credentials=f"{choice.link}{role}",
        tls=_tls(connection),
        region=headers.get("x-amz-bucket-region") or bucket.get("BucketRegion"),
        clock_skew_s=skew_s,
        versioning=await asked(lambda: _versioning(connection), "s3:GetBucketVersioning"),
        object_lock=await asked(lambda: _lock(connection), "s3:GetBucketObjectLockConfiguration"),
        encryption=await asked(lambda: _encryption(connection, probe), "s3:GetObject"),
        public=public,
        warnings=tuple(warnings),
    )


async def try_parts(
    connection: Connection, manners: Manners, key: str
) -> tuple[TidelogError | None, TidelogError | None]:
    """See `agent.storage.describing.UploadsInParts`."""
    name, upload_id = connection.name(key), None
    upload: TidelogError | None = None
    try:
        begun = await connection.call(
            "create_multipart_upload",
            "write",
            key,
            Key=name,
            **connection.encryption.new_object(),
        )
        upload_id = str(begun["UploadId"])
        mode = manners.checksum if manners.checksum != "crc32" else "none"
        await connection.call(
            "upload_part",
            "write",
            key,
            Key=name,
            UploadId=upload_id,
            PartNumber=1,
            Body=_PART,
            **checksum(mode, _PART),
            **connection.encryption.customer(),
        )
    except TidelogError as error:
        upload = error
    if upload_id is None:
        return upload, None
    try:
        await connection.call("abort_multipart_upload", "write", key, Key=name, UploadId=upload_id)
    except TidelogError as error:
        return upload, error
    return upload, None


async def _bucket(connection: Connection) -> dict[str, Any]:
    try:
        return await connection.call("head_bucket", "look at")
    except TidelogError:
        return {}  # what may not be looked at says nothing; the permissions tell of the rest


def _skew_s(date: str | None) -> float | None:
    try:
        return None if date is None else host_time_s() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _tls(connection: Connection) -> str:
    url = connection.settings.endpoint_url or "https://"
    if url.startswith("http:"):
        return "no: requests go in clear"
    if connection.settings.insecure_skip_tls_verify:
        return "yes, and any certificate is believed (insecureSkipTLSVerify)"
    if connection.settings.endpoint_ca is not None:
        return "yes, verified with endpointCA"
    return "yes, verified"


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
        return "not blocked"
    rules = answer.get("PublicAccessBlockConfiguration", {})
    return "blocked" if rules and all(rules.values()) else "not blocked"

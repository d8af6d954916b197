"""Sections `storage.s3` and `storage.minio`: S3 and everything that speaks its protocol.

`minio` is the same storage under the keys that PBM's native MinIO driver has.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from agent.wire.secrets import LITERAL, Plain, Secret
from agent.wire.storage_sections import Prefix, RetryerSettings, Section, endpoint_for, other_names
from agent.wire.units import Size

MIB: Final = 1 << 20
MIN_PART: Final = 5 * MIB
DEFAULT_PART: Final = 8 * MIB
DEFAULT_REGION: Final = "us-east-1"
MAX_PARTS: Final = 10_000


class S3Credentials(Section):
    """Whom requests are signed for. Empty: the surroundings of the agent decide."""

    access_key_id: Plain | None = None
    secret_access_key: Secret | None = Field(
        default=None, json_schema_extra=other_names("accessKeySecret", "accessSecretKey")
    )
    session_token: Secret | None = Field(
        default=None, json_schema_extra=other_names("accessSessionToken", "securityToken")
    )
    role_arn: str | None = None
    """A role to assume with whatever credentials are found; wins over `AWS_ROLE_ARN`."""
    session_name: str | None = Field(default=None, json_schema_extra=other_names("roleSessionName"))
    """How the session is called in the cloud's audit log; by default after the node."""
    external_id: str | None = None
    """What the trust policy of the role asks for."""
    web_identity_token_file: str | None = None
    """In place of `AWS_WEB_IDENTITY_TOKEN_FILE`."""
    sts_endpoint_url: str | None = None
    """Where roles are assumed, if not at AWS; in place of `AWS_ENDPOINT_URL_STS`."""
    profile: str | None = None
    """A profile of the shared AWS files on each agent's host."""
    signature_ver: str | None = None
    """Of PBM's files; requests are always signed with V4."""
    vault: dict[str, Any] | None = None
    """Of PBM's files; no effect, there either."""

    @model_validator(mode="after")
    def _key_has_both_halves(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "accessKeyId" if self.access_key_id is None else "secretAccessKey"
            raise ValueError(f"{missing} is missing; give both halves of the key or none")
        return self

    @field_validator("role_arn")
    @classmethod
    def _is_arn(cls, role_arn: str | None) -> str | None:
        if role_arn is not None and not role_arn.startswith("arn:"):
            raise ValueError("is no role; write arn:aws:iam::ACCOUNT:role/NAME")
        return role_arn


class S3Encryption(Section):
    """Encryption by the server. Without it the default of the bucket holds."""

    sse_algorithm: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, json_schema_extra=other_names("encryptionMethod")
    )
    kms_key_id: str | None = Field(
        default=None,
        alias="kmsKeyID",
        json_schema_extra=other_names("kmsMasterKeyID", "encryptionKeyId"),
    )
    """A key of KMS; without it the account's default key."""
    sse_customer_algorithm: Literal["AES256"] | None = None
    sse_customer_key: Secret | None = None
    """32 bytes in Base64, sent with every request and kept by nobody but you."""

    @model_validator(mode="after")
    def _is_one_method(self) -> Self:
        if self.sse_customer_key is not None and self.sse_algorithm is not None:
            raise ValueError("sseAlgorithm and sseCustomerKey exclude each other")
        if self.sse_customer_algorithm is not None and self.sse_customer_key is None:
            raise ValueError("sseCustomerAlgorithm needs sseCustomerKey")
        if self.kms_key_id is not None and not (self.sse_algorithm or "").startswith("aws:kms"):
            raise ValueError("kmsKeyID needs sseAlgorithm: aws:kms")
        return self

    @field_validator("sse_customer_key")
    @classmethod
    def _has_32_bytes(cls, key: Secret | None) -> Secret | None:
        if key is not None and key.kind == LITERAL:
            customer_key(key.value)
        return key


def customer_key(text: str) -> bytes:
    """The 32 bytes of an SSE-C key. Raises `ValueError`."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise ValueError("the SSE-C key is not Base64") from error
    if len(key) != 32:
        raise ValueError(f"the SSE-C key has {len(key)} bytes and not 32")
    return key


class ObjectStoreSection(Section):
    """What `s3` and `minio` have in common."""

    region: str | None = None
    bucket: str
    prefix: Prefix = ""
    credentials: S3Credentials = S3Credentials()
    server_side_encryption: S3Encryption = S3Encryption()
    endpoint_ca: Plain | None = Field(default=None, alias="endpointCA")
    """PEM certificates of authorities to trust beside those of the system."""
    insecure_skip_tls_verify: bool = Field(default=False, alias="insecureSkipTLSVerify")
    force_path_style: bool | Literal["auto"] = "auto"
    """`auto`: path style wherever an endpoint is named, `bucket.host` on AWS itself."""
    storage_class: str | None = None
    checksum: Literal["auto", "crc32", "md5", "none"] = "auto"
    """What uploads carry for the server to check. `auto`: CRC-32, or MD5 where a server does not
    know that. Never as a trailer, which many servers refuse."""
    conditional_writes: Literal["auto", "on", "off"] = "auto"
    """Whether the server refuses to overwrite when asked to (`If-None-Match: *`). `auto`: tried
    once on a probe object."""
    upload_part_size: Size = Field(
        default=DEFAULT_PART, ge=MIN_PART, json_schema_extra=other_names("partSize")
    )
    max_upload_parts: int = Field(default=MAX_PARTS, ge=1, le=MAX_PARTS)
    upload_concurrency: int = Field(default=3, ge=1, le=64)
    """Parts of one object under way at once; also parts read at once."""
    max_connections: int = Field(default=32, ge=1, le=1024)
    retryer: RetryerSettings = RetryerSettings()
    max_obj_size_gb: float | None = Field(default=None, alias="maxObjSizeGB")
    """Of PBM's files; objects of Tidelog are far smaller, so it has no effect."""
    debug_log_levels: Any = None
    """Of PBM's files; no effect."""
    debug_trace: bool | None = None
    """Of PBM's files; no effect."""

    @field_validator("bucket")
    @classmethod
    def _is_named(cls, bucket: str) -> str:
        if not bucket or "/" in bucket:
            raise ValueError("must be the name of a bucket; what is below it goes to prefix")
        return bucket


class S3Settings(ObjectStoreSection):
    """A bucket of S3, or of anything that speaks its protocol."""

    provider: str | None = None
    """Of old PBM files; no effect."""
    endpoint_url: str | None = None
    """Where the server is, if it is not AWS: https://host[:port]."""
    endpoint_url_map: dict[str, str] = Field(default_factory=dict)
    """`host:port` of a node → the endpoint that its agent uses instead."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None or not url.strip() else checked_endpoint(url)

    @field_validator("endpoint_url_map")
    @classmethod
    def _are_urls(cls, urls: dict[str, str]) -> dict[str, str]:
        return {node: checked_endpoint(url) for node, url in urls.items()}

    def at_node(self, node: str) -> S3Settings:
        """The settings with the endpoint of one node, `host:port`."""
        endpoint = endpoint_for(node, self.endpoint_url, self.endpoint_url_map)
        return self.model_copy(update={"endpoint_url": endpoint})


class MinioSettings(ObjectStoreSection):
    """The same with the keys of PBM's MinIO driver."""

    endpoint: str
    """`host:port`."""
    endpoint_map: dict[str, str] = Field(default_factory=dict)
    secure: bool = False
    """Whether the server speaks TLS."""

    def at_node(self, node: str) -> S3Settings:
        """As S3 settings with the endpoint of one node."""
        host = endpoint_for(node, self.endpoint, self.endpoint_map) or self.endpoint
        url = host if "://" in host else f"http{'s' if self.secure else ''}://{host}"
        shared = {
            name: getattr(self, name)
            for name in ObjectStoreSection.model_fields
            if name in self.model_fields_set
        }
        return S3Settings(**shared, endpoint_url=url)


def checked_endpoint(url: str) -> str:
    """Raises `ValueError`; a login in it is never repeated."""
    scheme, found, rest = url.strip().partition("://")
    authority = rest.partition("/")[0]
    if not found or scheme not in ("http", "https") or not authority:
        raise ValueError("must begin with http:// or https:// and name a host")
    if "@" in authority:
        raise ValueError("must hold no login; that goes to credentials")
    return url.strip().rstrip("/")

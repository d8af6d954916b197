"""Section `storage.oss`: Alibaba Cloud Object Storage Service."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agent.wire.secrets import Plain, Secret
from agent.wire.storage_s3 import DEFAULT_PART, MAX_PARTS, MIN_PART, checked_endpoint
from agent.wire.storage_sections import Prefix, RetryerSettings, Section, endpoint_for, other_names
from agent.wire.units import Duration, Size


class OssCredentials(Section):
    """Whom requests are signed for. Empty: the surroundings of the agent decide."""

    access_key_id: Plain | None = Field(default=None, alias="accessKeyID")
    access_key_secret: Secret | None = Field(
        default=None, json_schema_extra=other_names("secretAccessKey")
    )
    security_token: Secret | None = Field(
        default=None, json_schema_extra=other_names("sessionToken", "stsToken")
    )
    role_arn: str | None = None
    """A RAM role to assume with the key: `acs:ram::<uid>:role/<name>`."""
    session_name: str | None = Field(default=None, json_schema_extra=other_names("roleSessionName"))
    external_id: str | None = None
    sts_endpoint_url: str | None = None
    """By default `https://sts.<region>.aliyuncs.com`; `sts-vpc.<region>` inside a VPC."""

    @model_validator(mode="after")
    def _key_has_both_halves(self) -> Self:
        if (self.access_key_id is None) != (self.access_key_secret is None):
            missing = "accessKeyID" if self.access_key_id is None else "accessKeySecret"
            raise ValueError(f"{missing} is missing; give both halves of the key or none")
        return self

    @field_validator("sts_endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return checked_endpoint(url) if url else None

    @field_validator("role_arn")
    @classmethod
    def _is_arn(cls, role_arn: str | None) -> str | None:
        if role_arn is not None and not role_arn.startswith("acs:ram::"):
            raise ValueError("is no RAM role; write acs:ram::<account>:role/<name>")
        return role_arn


class OssEncryption(Section):
    """Encryption by the server. Without it the default of the bucket holds."""

    sse_algorithm: Literal["AES256", "KMS", "SM4"] | None = Field(
        default=None, json_schema_extra=other_names("encryptionMethod")
    )
    kms_master_key_id: str | None = Field(
        default=None,
        alias="kmsMasterKeyID",
        json_schema_extra=other_names("encryptionKeyId", "kmsKeyID"),
    )
    """A key of KMS; without it the service's default key."""
    kms_data_encryption: Literal["AES256", "SM4"] | None = Field(
        default=None, json_schema_extra=other_names("encryptionAlgorithm")
    )

    @model_validator(mode="after")
    def _keys_go_with_kms(self) -> Self:
        if self.kms_master_key_id is not None and self.sse_algorithm != "KMS":
            raise ValueError("kmsMasterKeyID needs sseAlgorithm: KMS")
        return self


class OssSettings(Section):
    """A bucket of OSS."""

    region: str | None = None
    bucket: str
    prefix: Prefix = ""
    endpoint_url: str | None = None
    """By default `https://oss-<region>.aliyuncs.com`."""
    endpoint_url_map: dict[str, str] = Field(default_factory=dict)
    credentials: OssCredentials = OssCredentials()
    server_side_encryption: OssEncryption = OssEncryption()
    endpoint_ca: Plain | None = Field(default=None, alias="endpointCA")
    insecure_skip_tls_verify: bool = Field(default=False, alias="insecureSkipTLSVerify")
    force_path_style: bool | Literal["auto"] = "auto"
    """`auto`: `bucket.host`, the only style that the service takes; path style for an address."""
    storage_class: str | None = None
    upload_part_size: Size = Field(default=DEFAULT_PART, ge=MIN_PART)
    max_upload_parts: int = Field(default=MAX_PARTS, ge=1, le=MAX_PARTS)
    upload_concurrency: int = Field(default=3, ge=1, le=64)
    connect_timeout: Duration = 5.0
    retryer: RetryerSettings = RetryerSettings()
    max_obj_size_gb: float | None = Field(default=None, alias="maxObjSizeGB")
    """Of PBM's files; no effect."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is None or not url.strip():
            return None
        return checked_endpoint(url if "://" in url else f"https://{url}")

    def at_node(self, node: str) -> OssSettings:
        """The settings with the endpoint of one node, `host:port`."""
        endpoint = endpoint_for(node, self.endpoint_url, self.endpoint_url_map)
        return self.model_copy(update={"endpoint_url": endpoint})

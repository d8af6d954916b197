"""Section `storage.gcs`: Google Cloud Storage."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from agent.wire.secrets import Plain, Secret
from agent.wire.storage_s3 import DEFAULT_PART, checked_endpoint
from agent.wire.storage_sections import Prefix, RetryerSettings, Section, endpoint_for, other_names
from agent.wire.units import Size


class GcsCredentials(Section):
    """Whom requests are made for. Empty: the surroundings of the agent decide."""

    application_credentials: Secret | None = Field(
        default=None, json_schema_extra=other_names("serviceAccountJson", "json")
    )
    """The JSON of a service account or an external account; best as `{file: …}`."""
    file: str | None = None
    """The path of such a JSON on each agent's host."""
    client_email: str | None = None
    private_key: Secret | None = None
    """With `clientEmail`: the two fields of a service account, as in PBM's files."""
    gke_environment: bool = False
    """The metadata server decides, as where nothing is given."""
    workload_identity: Any = None
    """Of PBM's files; the surroundings decide."""
    hmac_access_key: Plain | None = None
    hmac_secret: Secret | None = None
    """Of PBM's files, deprecated there: use the S3 driver with Google's endpoint."""


class GcsSettings(Section):
    """A bucket of Google Cloud Storage."""

    bucket: str
    prefix: Prefix = ""
    endpoint_url: str | None = None
    """By default Google's."""
    endpoint_url_map: dict[str, str] = Field(default_factory=dict)
    project_id: str | None = None
    credentials: GcsCredentials = GcsCredentials()
    endpoint_ca: Plain | None = Field(default=None, alias="endpointCA")
    insecure_skip_tls_verify: bool = Field(default=False, alias="insecureSkipTLSVerify")
    storage_class: str | None = None
    kms_key_name: str | None = None
    upload_part_size: Size = Field(
        default=DEFAULT_PART, ge=256 << 10, json_schema_extra=other_names("chunkSize")
    )
    upload_concurrency: int = Field(default=3, ge=1, le=64)
    retryer: RetryerSettings = RetryerSettings()
    max_obj_size_gb: float | None = Field(default=None, alias="maxObjSizeGB")
    """Of PBM's files; no effect."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None or not url.strip() else checked_endpoint(url)

    def at_node(self, node: str) -> GcsSettings:
        """The settings with the endpoint of one node, `host:port`."""
        endpoint = endpoint_for(node, self.endpoint_url, self.endpoint_url_map)
        return self.model_copy(update={"endpoint_url": endpoint})

"""Section `storage.azure`: Azure Blob Storage."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from agent.wire.secrets import MOUNTED, Plain, Secret
from agent.wire.storage_s3 import DEFAULT_PART, checked_endpoint
from agent.wire.storage_sections import Prefix, RetryerSettings, Section, endpoint_for, other_names
from agent.wire.units import Size

_METHODS: Final = ("connectionString", "key", "sasToken", "clientSecret", "inheritFromAzureAD")


class AzureCredentials(Section):
    """Exactly one way to log in; none: workload identity, environment or managed identity. Several
    may be named by the entries of mounted secrets: then the one that is mounted counts."""

    connection_string: Secret | None = None
    key: Secret | None = Field(
        default=None, json_schema_extra=other_names("storageKey", "accountKey")
    )
    """Of the account."""
    sas_token: Secret | None = Field(
        default=None, json_schema_extra=other_names("storageSasToken", "sas")
    )
    """A leading `?` does not matter."""
    client_secret: Secret | None = None
    """Of the application `clientId` of the directory `tenantId`."""
    inherit_from_azure_ad: bool = Field(default=False, alias="inheritFromAzureAD")
    """Workload identity, the environment or managed identity, whichever there is."""
    client_id: str | None = None
    """Which user-assigned managed identity, or which application."""
    tenant_id: str | None = None

    @model_validator(mode="after")
    def _is_one_method(self) -> Self:
        given = [
            self.connection_string is not None,
            self.key is not None,
            self.sas_token is not None,
            self.client_secret is not None,
            self.inherit_from_azure_ad,
        ]
        named = [name for name, is_given in zip(_METHODS, given, strict=True) if is_given]
        if len(named) > 1 and not self._are_entries():
            raise ValueError(f"{' and '.join(named)} are two ways to log in; give one")
        return self

    def _are_entries(self) -> bool:
        """Whether all that is given are entries of mounted secrets, which may be missing."""
        if self.client_secret is not None or self.inherit_from_azure_ad:
            return False
        given = (self.connection_string, self.key, self.sas_token)
        return all(secret is None or secret.kind == MOUNTED for secret in given)


class AzureSettings(Section):
    """A container of a storage account."""

    account: Plain | None = Field(default=None, json_schema_extra=other_names("storageAccount"))
    container: str
    prefix: Prefix = ""
    endpoint_url: str | None = None
    """By default `https://<account>.blob.core.windows.net`."""
    endpoint_url_map: dict[str, str] = Field(default_factory=dict)
    credentials: AzureCredentials = AzureCredentials()
    endpoint_ca: Plain | None = Field(default=None, alias="endpointCA")
    insecure_skip_tls_verify: bool = Field(default=False, alias="insecureSkipTLSVerify")
    access_tier: str | None = Field(default=None, json_schema_extra=other_names("storageClass"))
    upload_part_size: Size = Field(default=DEFAULT_PART, ge=1 << 20)
    upload_concurrency: int = Field(default=3, ge=1, le=64)
    retryer: RetryerSettings = RetryerSettings()
    max_obj_size_gb: float | None = Field(default=None, alias="maxObjSizeGB")
    """Of PBM's files; no effect."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None or not url.strip() else checked_endpoint(url)

    def at_node(self, node: str) -> AzureSettings:
        """The settings with the endpoint of one node, `host:port`."""
        endpoint = endpoint_for(node, self.endpoint_url, self.endpoint_url_map)
        return self.model_copy(update={"endpoint_url": endpoint})

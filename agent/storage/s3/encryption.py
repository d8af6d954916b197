"""The headers of server-side encryption, for every call that has some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.errors import ConfigError
from agent.storage.secrets import SecretReader
from agent.wire.storage_s3 import S3Encryption, customer_key


@dataclass(frozen=True, slots=True)
class Encryption:
    """What the settings ask for. A key of the customer is read again for each request."""

    settings: S3Encryption
    reader: SecretReader

    @property
    def has_customer_key(self) -> bool:
        """Whether the key travels with each request."""
        return self.settings.sse_customer_key is not None

    def new_object(self) -> dict[str, Any]:
        """For what makes an object: PutObject and CreateMultipartUpload."""
        if self.settings.sse_algorithm is None:
            return self.customer()
        headers: dict[str, Any] = {"ServerSideEncryption": self.settings.sse_algorithm}
        if self.settings.kms_key_id is not None:
            headers["SSEKMSKeyId"] = self.settings.kms_key_id
        return headers

    def customer(self) -> dict[str, Any]:
        """For parts of an object and for reading it. Raises `ConfigError`."""
        secret = self.settings.sse_customer_key
        if secret is None:
            return {}
        try:
            key = customer_key(self.reader.text(secret))
        except ValueError as error:
            raise ConfigError(f"{error}", hint="make one with: openssl rand -base64 32") from error
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}

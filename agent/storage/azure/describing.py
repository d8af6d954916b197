"""What a container of Azure tells about itself, for `ctl storage check`.

The container's own properties take a right on the container: a SAS token never has it, the role
*Storage Blob Data Contributor* has. What is read off the probe blob takes no more than a backup.
"""

from __future__ import annotations

from typing import Any

from azure.storage.blob.aio import ContainerClient

from agent.errors import TidelogError
from agent.storage.azure.connection import Connection
from agent.storage.describing import (
    NOT_BLOCKED,
    Description,
    asked,
    tls_in_words,
    worries,
)

_RIGHT = "Microsoft.Storage/…/containers/read"


async def describe(connection: Connection, probe: str) -> Description:
    """See `agent.storage.describing.Describing`."""
    blob = await _blob(connection, probe)
    settings = connection.settings
    public = await asked(lambda: _public(connection), _RIGHT)
    return Description(
        identity=await asked(connection.identity, "a token"),
        credentials=str(connection.choice.link),
        tls=tls_in_words(
            connection.endpoint,
            is_unverified=settings.insecure_skip_tls_verify,
            has_authority=settings.endpoint_ca is not None,
        ),
        clock_skew_s=connection.skew_s,
        versioning=None if blob is None else ("on" if blob.version_id else "off"),
        object_lock=await asked(lambda: _immutability(connection), _RIGHT),
        encryption=None if blob is None else _encryption(blob),
        public=public,
        warnings=worries(connection.skew_s, public, connection.sas_left_s),
    )


async def _blob(connection: Connection, probe: str) -> Any:
    """The properties of the probe; None where there is none to read."""
    try:
        return await connection.call(
            "read",
            probe,
            lambda container: container.get_blob_client(
                connection.name(probe)
            ).get_blob_properties(),
        )
    except TidelogError:
        return None  # the permissions tell why


async def _container(connection: Connection) -> Any:
    async def ask(container: ContainerClient) -> Any:
        return await container.get_container_properties()

    return await connection.call("ask for the properties of", None, ask)


async def _public(connection: Connection) -> str:
    return NOT_BLOCKED if (await _container(connection)).public_access else "blocked"


async def _immutability(connection: Connection) -> str:
    found = await _container(connection)
    holds = [
        name
        for name, is_on in (
            ("a time-based policy", found.has_immutability_policy),
            ("a legal hold", found.has_legal_hold),
            ("policies of versions", found.immutable_storage_with_versioning_enabled),
        )
        if is_on
    ]
    return f"on, {' and '.join(holds)}" if holds else "off"


def _encryption(blob: Any) -> str:
    if blob.encryption_key_sha256:
        return "a key of the customer"
    if blob.encryption_scope:
        return f"the scope {blob.encryption_scope}"
    return "by the service" if blob.server_encrypted else "none"

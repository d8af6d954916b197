"""`kind: ObjectStore`, the document in which the Barman Cloud plugin of CloudNativePG describes an
object store: read as the `storage` section it stands for, so that a file loads as it is.

    spec.configuration:
      destinationPath      url of bucket and prefix      endpointURL, endpointCA
      s3Credentials        accessKeyId, secretAccessKey, sessionToken, inheritFromIAMRole
      azureCredentials     connectionString, storageAccount, storageKey, storageSasToken,
                           inheritFromAzureAD
      googleCredentials    applicationCredentials, gkeEnvironment

Values are `{name, key}` of a mounted secret. What concerns PostgreSQL alone has no effect here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.errors import ConfigError

KIND: Final = "ObjectStore"
_NO_EFFECT: Final = frozenset({"wal", "data", "tags", "historyTags", "serverName"})
_OF_STORE: Final = frozenset({"destinationPath", "endpointURL", "endpointCA"})
_CREDENTIALS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "s3Credentials": (
        "s3",
        {
            "accessKeyId": "accessKeyId",
            "secretAccessKey": "secretAccessKey",
            "sessionToken": "sessionToken",
        },
    ),
    "azureCredentials": (
        "azure",
        {
            "connectionString": "connectionString",
            "storageKey": "key",
            "storageSasToken": "sasToken",
            "inheritFromAzureAD": "inheritFromAzureAD",
        },
    ),
    "googleCredentials": (
        "gcs",
        {"applicationCredentials": "applicationCredentials", "gkeEnvironment": "gkeEnvironment"},
    ),
}
"""By section: the driver, and what its credentials are called there."""
_BESIDE: Final = {"region": "region"}
"""What stands among the credentials and belongs to the section here."""
_IN_PATH: Final = "storageAccount"
"""Azure's account: destinationPath names it, so it says nothing new."""
_AMBIENT: Final = "inheritFromIAMRole"
"""No credentials: the role of the surroundings, which is what none means here."""


def is_object_store(document: Mapping[Any, Any]) -> bool:
    """Whether a document is of this kind."""
    return document.get("kind") == KIND


def from_object_store(document: Mapping[Any, Any]) -> dict[str, Any]:
    """The settings that it stands for. Raises `ConfigError` naming the key."""
    configuration = (document.get("spec") or {}).get("configuration")
    if not isinstance(configuration, Mapping):
        raise ConfigError(f"the {KIND} has no spec.configuration")
    given = [name for name in _CREDENTIALS if name in configuration]
    _refuse_unknown(configuration, _OF_STORE | _NO_EFFECT | _CREDENTIALS.keys(), "configuration")
    path = configuration.get("destinationPath")
    if not path:
        raise ConfigError(
            f"the {KIND} has no destinationPath",
            hint="write s3://BUCKET/PREFIX, gs://… or https://ACCOUNT.blob.core.windows.net/…",
        )
    if len(given) != 1:
        raise ConfigError(
            f"the {KIND} has {len(given)} kinds of credentials and should have one",
            hint=f"write one of {', '.join(_CREDENTIALS)}",
        )
    kind, section = _section(given[0], configuration[given[0]] or {})
    if configuration.get("endpointURL"):
        section["endpointUrl"] = configuration["endpointURL"]
    if configuration.get("endpointCA"):
        section["endpointCA"] = configuration["endpointCA"]
    return {"storage": {"type": kind, "url": path, kind: section}}


def _section(name: str, given: Any) -> tuple[str, dict[str, Any]]:
    kind, names = _CREDENTIALS[name]
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name} of the {KIND} holds no keys", hint=f"such as {', '.join(names)}")
    _refuse_unknown(given, {*names, *_BESIDE, _AMBIENT, _IN_PATH}, name)
    credentials = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    section = {ours: given[theirs] for theirs, ours in _BESIDE.items() if theirs in given}
    return kind, {**section, **({"credentials": credentials} if credentials else {})}


def _refuse_unknown(given: Mapping[Any, Any], known: set[str] | frozenset[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{where}.{key} of the {KIND} is not known",
                hint=f"known are {', '.join(sorted(known))}",
            )

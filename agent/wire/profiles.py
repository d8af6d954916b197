"""Profiles: the named storages of a cluster, `main` and those beside it, as pure functions.

A profile is only a name for settings. What tells one repository from another is its id, which lies
in the repository itself (`agent.wire.repositories`): a backup stays in its repository whatever the
profiles are called, and is not in another only because a profile's settings were changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.errors import ConfigError, NotFound
from agent.wire import keys
from agent.wire.settings import Settings, from_mapping
from agent.wire.storage_settings import StorageSettings

MAIN: Final = "main"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_PLACE_KEYS: Final = frozenset(
    {"path", "bucket", "container", "account", "prefix", "endpointUrl", "endpoint"}
)


def names(settings: Settings) -> list[str]:
    """All profiles, `main` first where there is one."""
    main = [MAIN] if settings.storage is not None else []
    return [*main, *sorted(settings.profiles)]


def storage_of(settings: Settings, profile: str) -> StorageSettings:
    """The storage of a profile. Raises `ConfigError` without a `main`, `NotFound`."""
    if profile == MAIN:
        if settings.storage is None:
            raise ConfigError(
                "no storage is configured", hint="set one with 'ctl config --file storage.yaml'"
            )
        return settings.storage
    if profile not in settings.profiles:
        known = ", ".join(names(settings))
        raise NotFound(
            f"there is no profile {profile}",
            hint=f"there are: {known}" if known else "'ctl profile add NAME FILE' adds one",
        )
    return settings.profiles[profile]


def check_name(name: str) -> str:
    """A name that a profile beside `main` may have. Raises `ConfigError`."""
    if name == MAIN:
        raise ConfigError(
            "main is the storage of the settings and no other profile's name",
            hint="change it with 'ctl config --file'",
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name: use letters, digits, - and _, at most 63")
    return name


def storage_in(raw: Mapping[Any, Any], source: str) -> StorageSettings:
    """The storage that the file of a profile describes: a `storage` section as in the settings, or
    what stands in one. Raises `ConfigError`."""
    settings = from_mapping(raw if "storage" in raw else {"storage": dict(raw)})
    others = sorted(settings.model_fields_set - {"storage"})
    if others:
        raise ConfigError(
            f"{source} has the section {others[0]}, and a profile is a storage only",
            hint="the rest belongs to 'ctl config'",
        )
    if settings.storage is None:
        raise ConfigError(f"{source} describes no storage")
    return settings.storage


def place_of(storage: StorageSettings) -> str:
    """A digest of what decides where the objects of a storage lie; credentials, retries and the
    like do not. Other settings for the same place are the same repository at once; other places
    have to be looked at."""
    section = getattr(storage, storage.type, None)
    shown = keys.masked(section) if section is not None else {}
    place = {key: value for key, value in shown.items() if key in _PLACE_KEYS}
    text = json.dumps([storage.type, place], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places(settings: Settings) -> dict[str, str]:
    """`{profile: place}` of all profiles, `main` first."""
    return {name: place_of(storage_of(settings, name)) for name in names(settings)}


def storage_path(settings: Settings, profile: str = MAIN) -> str:
    """Where the repository is, as the agents say it: `file:///backups`, `s3://bucket/prefix`; empty
    where there is no such profile."""
    if profile not in names(settings):
        return ""
    storage = storage_of(settings, profile)
    section: dict[str, Any] = keys.masked(storage).get(storage.type) or {}
    if "path" in section:
        return f"file://{section['path']}"
    place = section.get("bucket") or section.get("container") or ""
    prefix = str(section.get("prefix") or "").strip("/")
    return f"{storage.type}://{place}" + (f"/{prefix}" if prefix else "")


def with_profile(settings: Settings, name: str, storage: StorageSettings) -> Settings:
    """A copy with a profile put in, in place of one of that name."""
    return _replaced(settings, {**settings.profiles, check_name(name): storage})


def with_storage(settings: Settings, profile: str, storage: StorageSettings) -> Settings:
    """A copy in which a profile, `main` as well, has another storage."""
    if profile == MAIN:
        return settings.model_copy(update={"storage": storage})
    return with_profile(settings, profile, storage)


def without_profile(settings: Settings, name: str) -> Settings:
    """A copy without a profile. Raises `NotFound`, `ConfigError` for `main`."""
    check_name(name)
    storage_of(settings, name)
    return _replaced(settings, {k: v for k, v in settings.profiles.items() if k != name})


def _replaced(settings: Settings, profiles: Mapping[str, StorageSettings]) -> Settings:
    return settings.model_copy(update={"profiles": dict(profiles)})


def in_words(profiles: Iterable[str]) -> str:
    """`main and second`."""
    *first, last = list(profiles) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last

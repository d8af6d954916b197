"""What a restore takes over, and under which names and UUIDs it arrives.

A full restore takes everything as it was. A selective one takes the collections that bear a wanted
name *at the moment restored to*: what was renamed away by then is not wanted, what was renamed to a
wanted name is, from its first document on. Until such a collection gets its name it waits under one
of our own, so that nothing that was not named is touched on the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.errors import ConfigError
from agent.wire.namespaces import (
    ROUTING,
    TEMPORARY,
    USERS_AND_ROLES,
    Selection,
    is_archived,
    logical_name,
    split,
)

VIEWS: Final = "system.views"
_BUCKETS: Final = "system.buckets."


@dataclass(frozen=True, slots=True)
class Renaming:
    """`--ns-from`, `--ns-to`: one collection to another, or `a.*` to `b.*`."""

    source: str
    target: str

    @classmethod
    def parse(cls, source: str, target: str) -> Renaming:
        """Raises `ConfigError` for a pair that means nothing."""
        whole = [split(name)[1] in ("", "*") for name in (source, target)]
        if whole[0] != whole[1]:
            raise ConfigError(
                f"{source!r} cannot become {target!r}",
                hint="give two collections, or two databases as db.*",
            )
        if whole[0]:
            source, target = split(source)[0] + ".*", split(target)[0] + ".*"
        if source == target:
            raise ConfigError(f"{source!r} would be restored to itself", hint="leave both out")
        return cls(source, target)

    def map(self, namespace: str) -> str | None:
        """The new name; None for what is not meant."""
        database, collection = split(namespace)
        if self.source.endswith(".*"):
            if database != self.source[:-2]:
                return None
            return f"{self.target[:-2]}.{collection}"
        prefix = _BUCKETS if collection.startswith(_BUCKETS) else ""
        if f"{database}.{logical_name(collection)}" != self.source:
            return None
        database, collection = split(self.target)
        return f"{database}.{prefix}{collection}"


@dataclass(frozen=True, slots=True)
class Scope:
    """Decides for each collection, by its UUID where it was renamed and by its name elsewhere."""

    selection: Selection = field(default_factory=Selection)
    held: Selection = field(default_factory=Selection)
    """What the backup itself was narrowed to."""
    renaming: Renaming | None = None
    final_names: Mapping[bytes, str] = field(default_factory=dict)
    """The last names of collections that were renamed in the span, by UUID."""
    fresh_seed: str | None = None
    """Where the original UUIDs cannot be kept: what new ones are derived from, the same for each
    worker of one restore."""
    views_on_target: Mapping[str, bytes] = field(default_factory=dict)
    """UUIDs of `system.views` that the target has already, by its database."""

    @property
    def is_full(self) -> bool:
        """Whether everything is taken as it was."""
        return self.selection.is_everything and self.renaming is None

    def wants(self, uuid: bytes, namespace: str) -> bool:
        """Whether a collection is taken over."""
        if namespace in ROUTING:
            return self.selection.routing
        if not is_archived(namespace):
            return False
        if namespace in USERS_AND_ROLES:
            return self.selection.users_and_roles and self.renaming is None
        final = self.final_names.get(uuid, namespace)
        is_held = self.held.matches(namespace) or self.held.matches(final)
        return is_held and self._target_name(final) is not None

    def replaces(self, target_ns: str) -> bool:
        """Whether what has this name on the target gives way to the restore."""
        if not is_archived(target_ns) or target_ns in USERS_AND_ROLES:
            return False
        if self.renaming is None:
            return self.selection.matches(target_ns)
        database, collection = split(target_ns)
        if self.renaming.target.endswith(".*"):
            return database == self.renaming.target[:-2]
        return f"{database}.{logical_name(collection)}" == self.renaming.target

    def target_name(self, uuid: bytes, namespace: str) -> str:
        """The name on the target of a wanted collection that bears this one at the source."""
        if namespace in USERS_AND_ROLES:
            return f"admin.{TEMPORARY}{'Users' if namespace.endswith('users') else 'Roles'}"
        if namespace in ROUTING:
            return routing_copy(namespace)
        name = self._target_name(namespace)
        if name is not None:
            return name
        final = self._target_name(self.final_names[uuid]) or namespace
        return f"{split(final)[0]}.{TEMPORARY}.{uuid.hex()}"

    def name_here(self, namespace: str) -> str | None:
        """The name on the target of what bears this one at the moment restored to; None for what is
        not wanted."""
        return self._target_name(namespace)

    def target_uuid(self, uuid: bytes, namespace: str) -> bytes:
        """The UUID that the collection has, or gets, on the target."""
        database, collection = split(self._target_name(namespace) or namespace)
        if collection == VIEWS and not self.is_full and database in self.views_on_target:
            return self.views_on_target[database]
        if self.fresh_seed is None and namespace not in (*USERS_AND_ROLES, *ROUTING):
            return uuid
        return derived_uuid(f"{self.fresh_seed}/{uuid.hex()}")

    def view(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """The document of a view as the target gets it; None when the view is not wanted."""
        name = self.view_name(document["_id"])
        if name is None:
            return None
        found = dict(document)
        if name == document["_id"]:
            return found
        found["_id"] = name
        buckets = f"{split(document['_id'])[0]}.{document.get('viewOn', '')}"
        if split(buckets)[1].startswith(_BUCKETS):
            found["viewOn"] = split(self._target_name(buckets) or buckets)[1]
        return found

    def view_name(self, name: Any) -> str | None:
        """The name of a view on the target; None when the view is not wanted."""
        return self._target_name(name) if isinstance(name, str) else None

    def _target_name(self, namespace: str) -> str | None:
        if not self.selection.matches(namespace):
            return None
        if self.renaming is None:
            return namespace
        if split(namespace)[1] == VIEWS and split(self.renaming.source)[0] == split(namespace)[0]:
            return f"{split(self.renaming.target)[0]}.{VIEWS}"
        return self.renaming.map(namespace)


def routing_copy(namespace: str) -> str:
    """Where the routing documents of a backup wait until they are merged into the target's."""
    return f"admin.{TEMPORARY}{split(namespace)[1].capitalize()}"


def derived_uuid(text: str) -> bytes:
    """A version 4 UUID that is the same whenever the text is."""
    found = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    found[6] = found[6] & 0x0F | 0x40
    found[8] = found[8] & 0x3F | 0x80
    return bytes(found)

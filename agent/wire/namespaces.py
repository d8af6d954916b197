"""Namespaces: `database.collection`, patterns over them, and what is never backed up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.errors import ConfigError
from agent.wire.collections import PREFIX

_SYSTEM_DATABASES: Final = frozenset({"local", "config"})
_ADMIN_EXCLUDED: Final = frozenset({"system.version", "system.keys", "system.new_users"})
USERS_AND_ROLES: Final = ("admin.system.users", "admin.system.roles")
ROUTING: Final = (
    "config.databases",
    "config.collections",
    "config.chunks",
    "config.tags",
    "config.settings",
)
"""What the config servers of a sharded cluster know of the users' data, and which is theirs to
restore; all else in `config` belongs to the cluster as it is."""
TEMPORARY: Final = "tidelogTmp"
"""Prefix of temporary collections in `admin`, made and dropped by restores."""


def split(namespace: str) -> tuple[str, str]:
    """Database and collection. A database name holds no dot; a collection name may."""
    database, _, collection = namespace.partition(".")
    return database, collection


def is_archived(namespace: str) -> bool:
    """Whether a namespace belongs into a backup at all."""
    database, collection = split(namespace)
    if database in _SYSTEM_DATABASES or collection == "system.profile":
        return False
    if database == "admin":
        return not (collection in _ADMIN_EXCLUDED or collection.startswith(PREFIX))
    return True


def logical_name(collection: str) -> str:
    """The name a person knows: the view of a time series, not its buckets."""
    return collection.removeprefix("system.buckets.")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which namespaces a person named. Patterns are `db.collection`, `db.*` or `db`; naming a time
    series names its buckets. Without `include` everything is meant; `exclude` wins."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    users_and_roles: bool = True
    routing: bool = False
    """Whether the routing tables are wanted: on the config servers."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing was narrowed."""
        return not self.include and not self.exclude

    def holds(self, namespace: str) -> bool:
        """Whether the collection is wanted and belongs into a backup at all."""
        if namespace in ROUTING:
            return self.routing
        return is_archived(namespace) and self.matches(namespace)

    def matches(self, namespace: str) -> bool:
        """Whether the collection is wanted. `system.views` of a database is wanted as soon as
        anything of that database may be: the views in it are chosen one by one."""
        if namespace in USERS_AND_ROLES:
            return self.users_and_roles
        if namespace in ROUTING:
            return self.routing
        database, collection = split(namespace)
        if collection == "system.views":
            return self._reaches(database)
        named = f"{database}.{logical_name(collection)}"
        if any(_covers(pattern, named) for pattern in self.exclude):
            return False
        return not self.include or any(_covers(pattern, named) for pattern in self.include)

    def _reaches(self, database: str) -> bool:
        if any(_covers(pattern, f"{database}.*") for pattern in self.exclude):
            return False
        return not self.include or any(split(pattern)[0] == database for pattern in self.include)


def _covers(pattern: str, namespace: str) -> bool:
    database, collection = split(pattern)
    if collection in ("", "*"):
        return database == split(namespace)[0]
    return pattern == namespace


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a pattern that can match nothing."""
    for pattern in patterns:
        database, collection = split(pattern)
        is_vague = database == "*" or ("*" in collection and collection != "*")
        if not database or is_vague or collection.startswith("."):
            raise ConfigError(
                f"{pattern!r} is no namespace pattern", hint="write db.collection, db.* or db"
            )
        if database in _SYSTEM_DATABASES or database == "admin":
            raise ConfigError(
                f"{pattern!r} names a system database",
                hint="users and roles are chosen by --with-users-and-roles",
            )

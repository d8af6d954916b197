"""What the generator believes to exist; it never asks the server, so the seed alone decides."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.support.workload.values import COLLECTION_NAMES

WRITABLE = frozenset({"plain", "validated", "collation", "clustered", "images", "capped"})


@dataclass
class Collection:
    """A collection or view the generator has asked for."""

    database: str
    name: str
    kind: str
    indexes: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """`database.collection`."""
        return f"{self.database}.{self.name}"


class Catalogue:
    """The generator's own picture of the databases it writes to."""

    def __init__(self, databases: tuple[str, ...]) -> None:
        self.databases = databases
        self._known: dict[tuple[str, str], Collection] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._known)

    def add(self, database: str, name: str, kind: str) -> Collection:
        """Note a new collection, in place of one with the same name."""
        collection = Collection(database, name, kind)
        self._known[database, name] = collection
        return collection

    def forget(self, collection: Collection) -> None:
        """Note that a collection is gone."""
        self._known.pop((collection.database, collection.name), None)

    def forget_database(self, database: str) -> None:
        """Note that a database is gone."""
        self._known = {key: one for key, one in self._known.items() if key[0] != database}

    def rename(self, collection: Collection, database: str, name: str) -> None:
        """Note a new name."""
        self.forget(collection)
        self._known[database, name] = Collection(
            database, name, collection.kind, collection.indexes
        )

    def pick(self, rng: random.Random, kinds: frozenset[str]) -> Collection | None:
        """Any collection of these kinds."""
        matching = [one for one in self._known.values() if one.kind in kinds]
        return rng.choice(matching) if matching else None

    def in_database(self, database: str) -> list[Collection]:
        """Everything in one database."""
        return [one for one in self._known.values() if one.database == database]

    def writable(self, rng: random.Random) -> Collection:
        """A collection for documents; if there is none, one that the first write will create."""
        found = self.pick(rng, WRITABLE)
        if found is not None:
            return found
        return self.add(rng.choice(self.databases), rng.choice(COLLECTION_NAMES), "plain")

    def unused(self, rng: random.Random) -> tuple[str, str] | None:
        """A database and a name in it that nothing has."""
        database = rng.choice(self.databases)
        free = [name for name in COLLECTION_NAMES if (database, name) not in self._known]
        return (database, rng.choice(free)) if free else None

    def serial(self) -> int:
        """A number used once."""
        self._serial += 1
        return self._serial

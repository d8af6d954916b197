"""What a scratch server says of the share of a backup that it holds.

It holds the collections, indexes, users and roles that the backup has, and no others; every
collection passes the server's own `validate`; where nothing was replayed, each holds as many
documents as the manifest says, less those that belong to other shards; and `dbHash` of each
database is what an earlier proof of the same moment found.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from agent.errors import IntegrityError, NotFound, RestoreFailed
from agent.mongo.apply.target import collections
from agent.mongo.counting import count_exactly
from agent.mongo.scratch import database_hash, validate
from agent.operations.reading import Steps
from agent.operations.restore.plan import Plan
from agent.operations.scratch.restoring import Restored
from agent.wire.namespaces import TEMPORARY, split
from agent.wire.verdicts import ProvedShare, Verdict

_NOT_DATA: Final = frozenset({"local", "config"})
_NOT_HASHED: Final = frozenset({"admin", *_NOT_DATA})
"""Of `admin` parts are made by each server for itself."""
MAX_HASHES: Final = 20_000
"""Over all replica sets: they lie in the document of the backup, twice, and in the operation's."""
ALL: Final = "*"
"""Stands for all databases of a share, where they are too many to be named."""


def recorded(hashes: dict[str, str], at_most: int) -> dict[str, str]:
    """As they are recorded: each, or one of all where there are too many."""
    if len(hashes) <= at_most:
        return hashes
    listed = "\n".join(f"{database} {found}" for database, found in sorted(hashes.items()))
    return {ALL: hashlib.sha256(listed.encode()).hexdigest()}


class Share:
    """The proof of one replica set's share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.problems: list[str] = []
        self.recovery_s: float | None = None
        self.hashes: dict[str, str] = {}
        self.collections = 0
        self.documents = 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What cannot be restored is a finding."""
        try:
            yield
        except (IntegrityError, RestoreFailed, NotFound) as error:
            self.find(str(error))

    def find(self, problem: str) -> None:
        """Something is wrong; of a cluster it is said where."""
        where = f"{self.plan.source}: " if self.plan.topology.is_sharded else ""
        self.problems.append(where + problem)

    async def ask(self, found: Restored, steps: Steps) -> None:
        """Ask the server everything."""
        self.recovery_s = round(found.took_s, 3)
        for difference in found.differences:
            self.find(difference)
        expected = _expected(found)
        where = f"{self.plan.source}: " if self.plan.topology.is_sharded else ""
        steps.enter(f"{where}validating", documents_total=sum(expected.values()))
        for present in await collections(found.node):
            database, name = split(present.ns)
            if database in _NOT_DATA or name.startswith(TEMPORARY):
                continue
            self.collections += 1
            for problem in await validate(found.node, database, name):
                self.find(f"{present.ns}: {problem}")
            documents = await count_exactly(found.node, present.ns)
            self.documents += documents
            steps.add(documents_done=documents)
            wanted = expected.get(present.ns)
            if wanted not in (None, documents):
                self.find(f"{present.ns} holds {documents} documents, and {wanted} were backed up")
            if database not in _NOT_HASHED and database not in self.hashes:
                self.hashes[database] = await database_hash(found.node, database)
        self.hashes = recorded(self.hashes, MAX_HASHES // len(self.plan.topology.members))

    def compare(self, earlier: Verdict | None) -> None:
        """With an earlier proof of the same moment; the first one is what later ones must be."""
        if earlier is None or earlier.proved_at != self.plan.until or self.recovery_s is None:
            return
        before = _hashes_of(earlier, self.plan)
        for database in sorted(set(before) | set(self.hashes)):
            then, now = before.get(database), self.hashes.get(database)
            if then != now:
                self.find(
                    f"{database} has the dbHash {now}, and an earlier proof of the same moment"
                    f" found {then}"
                )

    def to_record(self) -> ProvedShare | None:
        """As the catalogue keeps it; None where it could not be restored."""
        if self.recovery_s is None:
            return None
        return ProvedShare(
            replset=self.plan.source,
            recovery_s=self.recovery_s,
            collections=self.collections,
            documents=self.documents,
            hashes=self.hashes,
        )


def _hashes_of(earlier: Verdict, plan: Plan) -> Mapping[str, str]:
    if not plan.topology.is_sharded:
        return earlier.hashes
    return next((one.hashes for one in earlier.shares if one.replset == plan.source), {})


def _expected(found: Restored) -> Counter[str]:
    """`{namespace: documents}` by the manifest; nothing where replay, or the end of a change of
    structure, may have changed them."""
    if found.report["operations_applied"] or found.is_finished_later:
        return Counter()
    manifest = found.plan.manifest
    of_uuid = Counter[str]()
    for item in manifest.objects:
        for segment in item.segments:
            of_uuid[segment.uuid] += segment.count
    rows = {row.uuid: row.ns for row in manifest.catalogue}
    data = ((ns, of_uuid[uuid]) for uuid, ns in rows.items() if split(ns)[0] != "admin")
    return Counter({ns: documents - found.orphans[ns] for ns, documents in data})

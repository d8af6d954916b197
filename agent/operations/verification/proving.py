"""`ctl verify --restore`: the backup is restored into a scratch server, which then is asked.

Every collection passes the server's own `validate`; where nothing was replayed, each holds as many
documents as the manifest says; and `dbHash` of each database is what an earlier proof of the same
moment found. What is wrong is a finding, recorded beside the backup, and no error of the operation.
An agent that takes over begins anew: a scratch server does not outlive its own.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Final

from agent.errors import IntegrityError, NotFound, RestoreFailed
from agent.mongo.apply.target import collections
from agent.mongo.scratch import count, database_hash, validate
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import profile_of
from agent.operations.reading import Steps, check_stays, one_part, result_of
from agent.operations.scratch.place import Place
from agent.operations.scratch.restoring import Restored, restored
from agent.wire.backups import Backup
from agent.wire.namespaces import TEMPORARY, split
from agent.wire.operations import Kind, Operation
from agent.wire.specs import ProveSpec, RestoreSpec
from agent.wire.verdicts import MAX_PROBLEMS, Level, Verdict

_NOT_DATA: Final = frozenset({"local", "config"})
_NOT_HASHED: Final = frozenset({"admin", *_NOT_DATA})
"""Of `admin` parts are made by each server for itself."""


class ProveKind:
    """Proofs by a scratch server, one backup each."""

    kind = Kind.PROVE

    def __init__(self, place: Place) -> None:
        self._place = place

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup must exist, not be about to go, and an agent be able to start a server."""
        spec = ProveSpec.from_document(operation.spec)
        await check_stays(lead, spec.name, spec.time)
        return await one_part(lead, operation)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """One part needs nobody."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore, ask, record."""
        spec = ProveSpec.from_document(part.operation.spec)
        backup = await part.services.catalog.backup(spec.name)
        self._place.root()
        self._place.program()
        self._place.require_space(backup.size_uncompressed_bytes)
        profile = await profile_of(part.services, part.settings, backup, spec.profile)
        wanted = RestoreSpec(backup=spec.name, time=spec.time, profile=profile)
        log = part.log.bind(backup=spec.name)
        try:
            async with restored(part, self._place, wanted, profile) as found:
                steps = Steps(part)
                proof = await steps.during(
                    partial(_Proof.of, found, backup, steps), what="asking the scratch mongod"
                )
        except (IntegrityError, RestoreFailed, NotFound) as error:
            proof = _Proof(problems=[str(error)])
        part.lease.check()
        verdict = proof.verdict()
        await part.services.catalog.record_verdict(spec.name, verdict)
        if verdict.is_sound:
            log.info("verify.proved", recovery_s=verdict.recovery_s)
        else:
            log.error("verify.harmed", harmed=verdict.harmed)
        return {
            "backup": spec.name,
            "node": part.services.node.id,
            "harmed": verdict.harmed,
            **verdict.to_json(),
            "problems": proof.problems[:200],
        }

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """What was found."""
        return result_of(operation)


class _Proof:
    """What the scratch server said."""

    def __init__(self, problems: list[str] | None = None) -> None:
        self.problems = problems or []
        self.found: Restored | None = None
        self.hashes: dict[str, str] = {}
        self.collections = 0
        self.documents = 0

    @classmethod
    async def of(cls, found: Restored, backup: Backup, steps: Steps) -> _Proof:
        """Ask it everything."""
        self = cls()
        self.found = found
        expected = _expected(found)
        steps.enter("validating", documents_total=sum(expected.values()))
        for present in await collections(found.node):
            database, name = split(present.ns)
            if database in _NOT_DATA or name.startswith(TEMPORARY):
                continue
            self.collections += 1
            for problem in await validate(found.node, database, name):
                self.problems.append(f"{present.ns}: {problem}")
            documents = await count(found.node, database, name)
            self.documents += documents
            steps.add(documents_done=documents)
            wanted = expected.pop(present.ns, None)
            if wanted not in (None, documents):
                self.problems.append(
                    f"{present.ns} holds {documents} documents, and {wanted} were backed up"
                )
            if database not in _NOT_HASHED and database not in self.hashes:
                self.hashes[database] = await database_hash(found.node, database)
        self._compare(backup.proof)
        return self

    def _compare(self, earlier: Verdict | None) -> None:
        """With an earlier proof of the same moment; the first one is what later ones must be."""
        assert self.found is not None
        if earlier is None or earlier.proved_at != self.found.plan.until:
            return
        for database in sorted(set(earlier.hashes) | set(self.hashes)):
            before, now = earlier.hashes.get(database), self.hashes.get(database)
            if before != now:
                self.problems.append(
                    f"{database} has the dbHash {now}, and an earlier proof of the same moment"
                    f" found {before}"
                )

    def verdict(self) -> Verdict:
        """As the catalogue keeps it."""
        found = self.found
        return Verdict(
            level=Level.PROVED,
            objects=len(found.plan.manifest.objects) + len(found.plan.slices) if found else 0,
            problems=tuple(self.problems[:MAX_PROBLEMS]),
            harmed=len(self.problems),
            recovery_s=round(found.took_s, 3) if found else None,
            proved_at=found.plan.until if found else None,
            collections=self.collections,
            documents=self.documents,
            hashes=self.hashes,
        )


def _expected(found: Restored) -> Counter[str]:
    """`{namespace: documents}` by the manifest; nothing where replay may have changed them."""
    if found.report["operations_applied"]:
        return Counter()
    manifest = found.plan.manifest
    of_uuid = Counter[str]()
    for item in manifest.objects:
        for segment in item.segments:
            of_uuid[segment.uuid] += segment.count
    rows = {row.uuid: row.ns for row in manifest.catalogue}
    data = ((ns, of_uuid[uuid]) for uuid, ns in rows.items() if split(ns)[0] != "admin")
    return Counter(dict(data))

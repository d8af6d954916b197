"""Everything a restore needs is proven before anything on the target is touched (I9).

Every object that will be read is read now, whole, and compared with its digest; every slice must
continue the one before it, from before the first document was read up to the wanted moment; every
command in them must be one that this version can replay. What fails is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final

from agent.archive.keyring import Keyring
from agent.archive.manifest import ChunkObject, Manifest, SliceRef
from agent.archive.vault import keyring_of
from agent.errors import IntegrityError, Refused, TargetNotCovered
from agent.operations.proof import prove_present, prove_read
from agent.operations.restore.plan import Plan
from agent.replay.commands import KNOWN
from agent.replay.scope import Scope
from agent.storage.base import Storage
from agent.tasks import TaskGroup
from agent.wire.optime import OpTime
from agent.wire.settings import Settings
from agent.wire.specs import RestoreSpec

READERS: Final = 4
_BLOCK: Final = 1 << 20

Item = ChunkObject | SliceRef


def wanted_objects(manifest: Manifest, scope: Scope) -> list[ChunkObject]:
    """The chunk objects that hold something of the scope."""
    wanted = {
        entry.uuid
        for entry in manifest.catalogue
        if scope.wants(bytes.fromhex(entry.uuid), entry.ns)
    } - set(manifest.dropped)
    return [item for item in manifest.objects if any(s.uuid in wanted for s in item.segments)]


def check_slices(plan: Plan) -> None:
    """The slices link from `first_write` to the wanted moment. Raises `IntegrityError`."""
    manifest, slices = plan.manifest, plan.slices
    # The backup archived up to its last write: where it has no slice, nothing happened. A shard may
    # be idle while others are not.
    vouched = manifest.first_write if manifest.slices else manifest.last_write
    first = manifest.slices or slices
    reached = first[0].start if first else vouched
    if reached > vouched:
        raise IntegrityError(
            f"the slices begin at {reached}, after the first write {manifest.first_write}"
        )
    own = {item.key for item in manifest.slices}
    previous: SliceRef | None = None
    for item in slices:
        is_seam = previous is not None and previous.key in own and item.key not in own
        is_idle = is_seam and item.start <= manifest.last_write
        if previous is not None and not is_idle and not _continues(item, previous, is_seam=is_seam):
            raise IntegrityError(f"{item.key} does not continue {previous.key}")
        previous = item
        reached = item.end
    if max(reached, manifest.last_write) < plan.reached:
        raise IntegrityError(f"the slices end at {reached}, before {plan.reached}")


def check_chain(slices: Sequence[SliceRef], since: OpTime, until: OpTime) -> None:
    """The slices link and hold everything in `(since, until]`. Raises `TargetNotCovered` naming
    what is covered, `IntegrityError` for a broken link."""
    if not slices or slices[0].start > since:
        raise TargetNotCovered(
            f"no slices begin at or before {since.in_words()}",
            hint="'ctl list --unbacked' shows what there is",
        )
    for previous, item in pairwise(slices):
        if not _continues(item, previous, is_seam=False):
            raise IntegrityError(f"{item.key} does not continue {previous.key}")
    if slices[-1].end < until:
        raise TargetNotCovered(
            f"the slices from {since.in_words()} on reach {slices[-1].end.in_words()}, "
            f"not {until.in_words()}",
            hint="'ctl list --unbacked' shows what there is",
        )


def _continues(item: SliceRef, previous: SliceRef, *, is_seam: bool) -> bool:
    """Whether a slice goes on where the one before it ends. Between the backup's own slices and
    those that carry on from them there may be an overlap, since different agents cut them; what
    both hold are the same committed entries."""
    if item.previous_sha256 == previous.sha256:
        return item.start == previous.end
    return is_seam and item.start <= previous.end


def check_commands(slices: Iterable[SliceRef]) -> None:
    """Every command is known. Raises `Refused`."""
    for item in slices:
        unknown = sorted(set(item.commands) - KNOWN)
        if unknown:
            raise Refused(
                f"{item.key} holds the command {unknown[0]}, which this version cannot replay",
                hint="upgrade the agents, or restore to a moment before it",
            )


def check_versions(plan: Plan, version: str, fcv: str) -> list[str]:
    """The target is no older than the backup; answers what is worth a warning. Raises
    `Refused`."""
    backup = plan.backup
    source, target = _numbers(backup.fcv), _numbers(fcv)
    if target < source:
        raise Refused(
            f"the backup is of feature compatibility version {backup.fcv}, and the target has "
            f"{fcv}",
            hint="restore to the same or a newer version of MongoDB, with its feature "
            "compatibility version set",
        )
    if target > source:
        return [
            f"the backup is of MongoDB {backup.mongodb_version} with feature compatibility version "
            f"{backup.fcv}, the target runs {version} with {fcv}"
        ]
    return []


def quorum_of(spec: RestoreSpec, settings: Settings) -> str | int | None:
    """Who has to have built an index before it is ready; None where nobody chose."""
    chosen = spec.index_commit_quorum
    return settings.restore.index_commit_quorum if chosen is None else chosen


def check_quorum(quorum: str | int | None, members: int) -> None:
    """The server would refuse to build indexes, when all data are replaced. Raises `Refused`."""
    if isinstance(quorum, int) and quorum > members:
        raise Refused(
            f"the commit quorum of indexes is {quorum}, and the replica set has {members} members "
            "with data",
            hint="choose fewer, or majority (--index-commit-quorum, restore.indexCommitQuorum)",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


async def prove_keys(storage: Storage, items: Iterable[Item]) -> None:
    """The keys of all objects unwrap on this agent, now. Raises `KeyUnusable`, or
    `KeyServiceUnavailable`."""
    keyrings: dict[int, Keyring] = {}
    wanted: dict[int, set[str]] = {}
    for item in items:
        keyring = keyring_of(storage, item.key)
        if item.key_id and keyring is not None:
            keyrings[id(keyring)] = keyring
            wanted.setdefault(id(keyring), set()).add(item.key_id)
    for number, key_ids in wanted.items():
        await keyrings[number].prove(key_ids)


async def prove_objects(
    storage: Storage, items: Sequence[Item], on_proven: Callable[[Item], None]
) -> None:
    """Unwrap every key, read every object and compare it with its digest. Raises `KeyUnusable`
    and `IntegrityError` naming one."""
    await prove_keys(storage, items)
    remaining = iter(items)

    async def prove() -> None:
        for item in remaining:
            await prove_read(storage, item)
            on_proven(item)

    async with TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(prove())


async def find_objects(storage: Storage, items: Sequence[Item]) -> None:
    """Every object is there with its size, every key unwraps. Raises `KeyUnusable` and
    `IntegrityError` naming one."""
    await prove_keys(storage, items)
    remaining = iter(items)

    async def find() -> None:
        for item in remaining:
            await prove_present(storage, item)

    async with TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(find())

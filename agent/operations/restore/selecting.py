"""Turning what a person named into a scope: which collections, by UUID where renames matter.

Names are meant as they are at the moment restored to, so the renames in the slices are read before
anything begins. Slices say which commands they hold: those without a rename are not read here.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import bson

from agent.archive.manifest import CollectionEntry, SliceRef
from agent.errors import ConfigError, NotFound
from agent.mongo.raw import documents
from agent.operations.restore.plan import Plan
from agent.operations.restore.reading import pieces, slice_entries
from agent.replay.entries import COMMAND, Entry, command_name, entries
from agent.replay.scope import VIEWS, Renaming, Scope
from agent.storage.base import Storage
from agent.wire.namespaces import Selection, check_patterns, logical_name, split
from agent.wire.optime import OpTime
from agent.wire.specs import RestoreSpec

_NEAREST: Final = 3


@dataclass(slots=True)
class Names:
    """What the commands of the span did to names."""

    renamed: dict[bytes, str] = field(default_factory=dict)
    """The last name of each renamed collection."""
    created: dict[bytes, str] = field(default_factory=dict)

    def final(self, uuid: bytes, name: str) -> str:
        """The last name of a collection."""
        return self.renamed.get(uuid, name)


def scope_of(spec: RestoreSpec, plan: Plan) -> Scope:
    """What the specification asks for, before names are resolved. Raises `ConfigError`."""
    backup, routing = plan.backup, plan.target.is_config
    check_patterns(spec.ns + spec.exclude_ns)
    renaming = None
    if spec.ns_from is not None or spec.ns_to is not None:
        if spec.ns_from is None or spec.ns_to is None:
            raise ConfigError("--ns-from and --ns-to go together")
        if spec.ns or spec.exclude_ns or spec.with_users_and_roles:
            raise ConfigError(
                "--ns-from goes with neither --ns, --exclude-ns nor --with-users-and-roles"
            )
        check_patterns((spec.ns_from, spec.ns_to))
        renaming = Renaming.parse(spec.ns_from, spec.ns_to)
    principals = backup.with_users_and_roles and (
        spec.with_users_and_roles or not spec.is_selective
    )
    include = spec.ns or ((spec.ns_from,) if spec.ns_from else ())
    exclude = spec.exclude_ns
    if not spec.is_selective:
        # All of a selective backup is no more than what it was narrowed to.
        include, exclude = backup.ns, backup.exclude_ns
    return Scope(
        selection=Selection(include, exclude, principals, routing),
        held=Selection(backup.ns, backup.exclude_ns, backup.with_users_and_roles, routing),
        renaming=renaming,
    )


async def resolve(storage: Storage, plan: Plan, scope: Scope) -> Scope:
    """The scope with the final names of renamed collections. Raises `IntegrityError`."""
    if scope.is_full:
        return scope
    return replace(scope, final_names=(await _read_names(storage, plan)).renamed)


async def check_found(
    storage_of: Callable[[Plan], Storage], plans: Sequence[Plan], scope: Scope
) -> None:
    """Every name a person gave is found in one of the parts. Raises `NotFound` naming the pattern
    that nothing matches."""
    backup = plans[0].backup
    if scope.is_full or scope.selection.include == backup.ns:
        return
    names = Names()
    base: dict[bytes, str] = {}
    for plan in plans:
        found = await _read_names(storage_of(plan), plan)
        names.renamed |= found.renamed
        names.created |= found.created
        base |= {bytes.fromhex(entry.uuid): entry.ns for entry in plan.manifest.catalogue}
    shown = {_shown(names.final(uuid, ns)) for uuid, ns in (base | names.created).items()}
    for pattern in scope.selection.include:
        await _check_pattern(storage_of, plans, pattern, shown, _moved(pattern, base, names))


async def _read_names(storage: Storage, plan: Plan) -> Names:
    names = Names()
    floor, until = plan.manifest.catalogue_at.pack(), plan.until.pack()
    for item in plan.slices:
        if not {"renameCollection", "create"} & set(item.commands):
            continue
        async for entry in _commands(storage, item):
            if floor < entry.ts <= until:
                _note(names, entry)
    return names


async def _commands(storage: Storage, item: SliceRef) -> AsyncIterator[Entry]:
    for data in await slice_entries(storage, item):
        for entry in entries(data):
            if entry.op == COMMAND:
                yield entry


def _note(names: Names, entry: Entry) -> None:
    name = command_name(entry)
    if name == b"renameCollection":
        names.renamed[entry.ui] = entry.command()["to"]
    elif name == b"create":
        database = split(entry.ns.decode())[0]
        names.created[entry.ui] = f"{database}.{entry.command()['create']}"


async def _check_pattern(
    storage_of: Callable[[Plan], Storage],
    plans: Sequence[Plan],
    pattern: str,
    found: set[str],
    moved: str | None,
) -> None:
    until = plans[0].until
    database, collection = split(pattern)
    if collection in ("", "*"):
        if not any(split(name)[0] == database for name in found):
            raise _unknown(pattern, sorted({f"{split(n)[0]}.*" for n in found}), until)
    elif pattern not in found:
        views = [await _views(storage_of(plan), plan, database) for plan in plans]
        if not any(pattern in names for names in views):
            raise _unknown(pattern, sorted(found), until, moved)


def _shown(name: str) -> str:
    database, collection = split(name)
    return f"{database}.{logical_name(collection)}"


def _moved(pattern: str, base: Mapping[bytes, str], names: Names) -> str | None:
    """The last name of the collection that had this name when the backup began."""
    uuid = next((uuid for uuid, ns in base.items() if ns == pattern), None)
    return None if uuid is None else names.renamed.get(uuid)


def _unknown(
    pattern: str, known: Sequence[str], until: OpTime, moved: str | None = None
) -> NotFound:
    if moved is not None:
        hint = f"it was renamed to {moved} by then; name that, or ask for an earlier moment"
    else:
        near = difflib.get_close_matches(pattern, known, n=_NEAREST, cutoff=0.6)
        hint = (
            f"nearest: {', '.join(near)}" if near else "'ctl describe-backup' shows what it holds"
        )
    return NotFound(f"the backup holds no {pattern} as of {until}", hint=hint)


async def _views(storage: Storage, plan: Plan, database: str) -> set[str]:
    """The views of one database, as the chunks have them."""
    entry = next((e for e in plan.manifest.catalogue if e.ns == f"{database}.{VIEWS}"), None)
    return set() if entry is None else await _view_names(storage, plan, entry)


async def _view_names(storage: Storage, plan: Plan, entry: CollectionEntry) -> set[str]:
    found: set[str] = set()
    for item in plan.manifest.objects:
        wanted = [segment for segment in item.segments if segment.uuid == entry.uuid]
        async for _, data in pieces(storage, item, wanted):
            found |= {str(bson.decode(data[a:b])["_id"]) for a, b in documents(data)}
    return found

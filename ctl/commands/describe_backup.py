"""`ctl describe-backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.wire.operations import Kind, Operation
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import find_backup, unknown
from ctl.options import global_options
from ctl.places import read_places
from ctl.render import as_yaml, moment, size

if TYPE_CHECKING:
    from agent.wire.backups import Backup, ReplsetPart
    from ctl.session import Session


@click.command("describe-backup")
@click.argument("name")
@click.option("--with-collections", is_flag=True, help="Figures of each collection, too.")
@global_options
@pass_invocation
def command(invocation: Invocation, name: str, with_collections: bool) -> None:
    """Show everything known of a backup, published or not."""

    async def run(session: Session) -> Result:
        operation = await session.operations.find(name, Kind.BACKUP)
        backup = await find_backup(session, name)
        if backup is None and operation is None:
            raise unknown("backup", name, [known.id for known in await session.catalog.backups()])
        described = describe(name, backup, operation, with_collections)
        if backup is not None:
            described["profiles"] = (await read_places(session)).profiles_of(backup)
        return Result(described, as_yaml(described))

    invocation.perform(run)


def describe(
    name: str, backup: Backup | None, operation: Operation | None, with_collections: bool
) -> dict[str, Any]:
    """Facts of the catalogue where it is published, of the operation where it is not."""
    known: dict[str, Any] = {"name": name}
    if operation is not None:
        known |= {"op_id": operation.id, "status": operation.state.value}
    if backup is not None:
        known |= _published(backup)
    elif operation is not None:
        known |= {"type": operation.spec.get("type", "logical"), "spec": operation.spec}
    if operation is not None:
        if operation.result.get("copies"):
            known["copies"] = operation.result["copies"]
        known |= {
            "requested_at": moment(operation.requested_at),
            "requested_by": operation.requested_by,
            "finished_at": moment(operation.finished_at) if operation.finished_at else None,
            "error": operation.error.to_json() if operation.error is not None else None,
            "history": [entry.to_json() for entry in operation.history],
        }
    collections = collections_of(operation) if with_collections else None
    known["replsets"] = _replsets(backup, operation, collections)
    return known


def _published(backup: Backup) -> dict[str, Any]:
    facts = backup.to_json()
    for stored in ("_id", "replsets", "size_bytes", "size_uncompressed_bytes", "schema_version"):
        facts.pop(stored, None)
    return {
        "status": "done",
        **facts,
        "selective": backup.is_selective,
        "namespaces": list(backup.ns),
        "first_write_time": moment(backup.first_write.wall()),
        "last_write_time": moment(backup.last_write.wall()),
        **_sizes(backup),
    }


def _sizes(part: Backup | ReplsetPart) -> dict[str, Any]:
    return {
        "size": part.size_bytes,
        "size_h": size(part.size_bytes),
        "size_uncompressed": part.size_uncompressed_bytes,
        "size_uncompressed_h": size(part.size_uncompressed_bytes),
    }


def _replsets(
    backup: Backup | None, operation: Operation | None, collections: dict[str, Any] | None
) -> list[dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    for part in operation.parts if operation is not None else ():
        described[part.replset] = {
            "name": part.replset,
            "status": part.state.value,
            "node": part.node,
            "attempts": part.attempts,
            "reread_bytes": int(part.result.get("reread_bytes", 0)),
            "error": part.error.to_json() if part.error is not None else None,
        }
    for published in backup.replsets if backup is not None else ():
        facts = published.to_json()
        for stored in ("replset", "size_bytes", "size_uncompressed_bytes"):
            facts.pop(stored)
        entry = described.setdefault(published.replset, {"name": published.replset})
        entry |= {"status": "done", **facts, **_sizes(published)}
        entry["collection_count"] = entry.pop("collections")
    for name, entry in described.items() if collections is not None else ():
        entry["collections"] = (collections or {}).get(name, [])
    return list(described.values())


def collections_of(operation: Operation | None) -> dict[str, Any]:
    """What the workers wrote into the results of their parts; they bound it."""
    parts = operation.parts if operation is not None else ()
    return {part.replset: part.result.get("collections", []) for part in parts}

"""`ctl backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from agent.errors import Refused
from agent.wire.compression import (
    HIGHEST_LEVEL,
    LOWEST_LEVEL,
    Compression,
    stored_compression,
)
from agent.wire.namespaces import Selection, check_patterns, split
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import MAIN, in_words, storage_path
from agent.wire.specs import BackupSpec
from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import find_backup
from ctl.options import Names, global_options, queue_option, selection_options, wait_options
from ctl.render import duration, optime, size
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from ctl.session import Session

TYPES: Final = ("logical", "physical", "incremental", "external")
COMPRESSIONS: Final = ("zstd", "none", "gzip", "pgzip", "snappy", "lz4", "s2")


@click.command("backup")
@click.option("-t", "--type", "type_", type=click.Choice(TYPES), default="logical")
@selection_options
@click.option("--compression", type=click.Choice(COMPRESSIONS), help="All mean zstd but none.")
@click.option(
    "--compression-level",
    type=click.IntRange(LOWEST_LEVEL, HIGHEST_LEVEL),
    metavar="N",
    help="1 (fast) to 19 (small).",
)
@click.option("--num-parallel-collections", type=click.IntRange(1), metavar="N")
@click.option(
    "--profile",
    type=Names(),
    multiple=True,
    metavar="P,…",
    help="Storage profile; several make copies.  [default: main]",
)
@queue_option
@click.option("--hold", metavar="TEXT", help="Keep it from being deleted, for this reason.")
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation, /, *, wait: bool, wait_time: float | None, queue: bool, **flags: Any
) -> None:
    """Take a backup of the whole cluster, or of the namespaces given.

    It is consistent at its last write, and listed only when all of it is on the storage.
    """
    spec = build_spec(**flags)

    async def run(session: Session) -> Result:
        for target in spec.targets:
            settings = await require_storage(session, target)
        operation = await submit(session, Kind.BACKUP, spec, queue=queue)
        if not wait and wait_time is None:
            return Result(brief(operation), brief_text(operation))
        done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        return await finished(session, done, storage_path(settings, spec.targets[0]))

    invocation.perform(run)


def build_spec(
    *,
    type_: str,
    ns: tuple[str, ...],
    exclude_ns: tuple[str, ...],
    with_users_and_roles: bool,
    compression: Compression | None,
    compression_level: int | None,
    num_parallel_collections: int | None,
    profile: tuple[tuple[str, ...], ...],
    hold: str | None,
) -> BackupSpec:
    """The specification, or one clear refusal of what Tidelog has not got."""
    if type_ != "logical":
        raise Refused(
            f"backups of type {type_} are not supported", hint="take a logical one (the default)"
        )
    if hold is not None and not hold.strip():
        raise click.UsageError("--hold wants a reason")
    ns = () if "*.*" in ns else ns
    check_patterns(ns)
    check_patterns(exclude_ns)
    chosen = tuple(dict.fromkeys(name for names in profile for name in names))
    return BackupSpec(
        ns=ns,
        exclude_ns=exclude_ns,
        with_users_and_roles=with_users_and_roles,
        compression=stored_compression(compression) if compression else None,
        compression_level=compression_level,
        num_parallel_collections=num_parallel_collections,
        profile=chosen[0] if chosen else MAIN,
        profiles=chosen if len(chosen) > 1 else None,
        hold=hold,
    )


async def finished(session: Session, operation: Operation, path: str) -> Result:
    """What a published backup is, from the catalogue."""
    backup = await find_backup(session, operation.name)
    known = {**operation.result, **(backup.to_result() if backup is not None else {})}
    data = {
        **brief(operation),
        "profile": known.get("profile", MAIN),
        "storage_path": known.get("storage_path", path),
        "first_write": known.get("first_write"),
        "last_write": known.get("last_write"),
        "size": known.get("size"),
        "size_uncompressed": known.get("size_uncompressed"),
    }
    if len(known.get("copies", ())) > 1:
        data["copies"] = known["copies"]
    words = f"Backup {operation.name} done"
    if operation.finished_at is not None:
        took = (operation.finished_at - operation.requested_at).total_seconds()
        words += f" in {duration(took)}"
    if backup is not None:
        words += (
            f": {size(backup.size_bytes)} ({size(backup.size_uncompressed_bytes)} uncompressed)"
            f" in {known.get('storage_path', path)}\nConsistent at {optime(backup.last_write)}"
        )
    if missed := unmatched(operation, backup):
        data["warnings"] = [f"there is no collection for --ns {pattern}" for pattern in missed]
        words += "".join(f"\nWarning: {sentence}" for sentence in data["warnings"])
    return Result(data, words, lost_copies(operation))


def unmatched(operation: Operation, backup: Backup | None) -> list[str]:
    """The patterns of `--ns` for which the backup holds nothing: misspelt, most likely. Nothing is
    said where that is not sure: of views, which have no collection, and of more collections than
    an operation lists."""
    held = [entry["ns"] for p in operation.parts for entry in p.result.get("collections", ())]
    if backup is None or len(held) < sum(share.collections for share in backup.replsets):
        return []
    with_views = {split(ns)[0] for ns in held if split(ns)[1] == "system.views"}
    return [
        pattern
        for pattern in BackupSpec.from_document(operation.spec).ns
        if split(pattern)[0] not in with_views
        and not any(Selection((pattern,), users_and_roles=False).matches(ns) for ns in held)
    ]


def lost_copies(operation: Operation) -> OperationFailed | None:
    """What to say of a backup that is done, but not on all the storages that were asked for."""
    copies = operation.result.get("copies", [])
    lost = [copy for copy in copies if copy["status"] == "failed"]
    if not lost:
        return None
    made = in_words(copy["profile"] for copy in copies if copy["status"] == "done")
    why = "; ".join(f"{copy['profile']}: {copy['error']}" for copy in lost)
    return OperationFailed(
        f"the backup {operation.name} is complete on {made}, but not on {why}",
        hint=next((copy["hint"] for copy in lost if copy.get("hint")), "")
        or "see to the storage, and take another backup there",
    )

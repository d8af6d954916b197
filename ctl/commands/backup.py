"""`ctl backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from agent.errors import Refused
from agent.wire.namespaces import check_patterns
from agent.wire.operations import Kind, Operation
from agent.wire.settings import Compression, storage_path, stored_compression
from agent.wire.specs import BackupSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import find_backup
from ctl.options import global_options, selection_options, wait_options
from ctl.render import duration, optime, size
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session

TYPES: Final = ("logical", "physical", "incremental", "external")
COMPRESSIONS: Final = ("zstd", "none", "gzip", "pgzip", "snappy", "lz4", "s2")


@click.command("backup")
@click.option("-t", "--type", "type_", type=click.Choice(TYPES), default="logical")
@selection_options
@click.option("--compression", type=click.Choice(COMPRESSIONS), help="All mean zstd but none.")
@click.option("--compression-level", type=int, metavar="N", help="1 (fast) to 19 (small).")
@click.option("--num-parallel-collections", type=click.IntRange(1), metavar="N")
@click.option("--profile", multiple=True, metavar="P", help="Storage profile.  [default: main]")
@click.option("--queue", is_flag=True, help="Wait in line if another operation is in progress.")
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
        settings = await require_storage(session, spec.profile)
        operation = await submit(session, Kind.BACKUP, spec, queue=queue)
        if not wait and wait_time is None:
            return Result(brief(operation), brief_text(operation))
        done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        return await finished(session, done, storage_path(settings))

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
    profile: tuple[str, ...],
    hold: str | None,
) -> BackupSpec:
    """The specification, or one clear refusal of what Tidelog has not got."""
    if type_ != "logical":
        raise Refused(
            f"backups of type {type_} are not supported", hint="take a logical one (the default)"
        )
    if len(profile) > 1:
        raise Refused(
            "a backup into several profiles at once is not supported",
            hint="take one after another, with --queue",
        )
    ns = () if "*.*" in ns else ns
    check_patterns(ns)
    check_patterns(exclude_ns)
    return BackupSpec(
        ns=ns,
        exclude_ns=exclude_ns,
        with_users_and_roles=with_users_and_roles,
        compression=stored_compression(compression) if compression else None,
        compression_level=compression_level,
        num_parallel_collections=num_parallel_collections,
        profile=profile[0] if profile else "main",
        hold=hold,
    )


async def finished(session: Session, operation: Operation, path: str) -> Result:
    """What a published backup is, from the catalogue."""
    backup = await find_backup(session, operation.name)
    known = {**operation.result, **(backup.to_result() if backup is not None else {})}
    data = {
        **brief(operation),
        "profile": known.get("profile", "main"),
        "storage_path": known.get("storage_path", path),
        "first_write": known.get("first_write"),
        "last_write": known.get("last_write"),
        "size": known.get("size"),
        "size_uncompressed": known.get("size_uncompressed"),
    }
    words = f"Backup {operation.name} done"
    if operation.finished_at is not None:
        took = (operation.finished_at - operation.requested_at).total_seconds()
        words += f" in {duration(took)}"
    if backup is not None:
        words += (
            f": {size(backup.size_bytes)} ({size(backup.size_uncompressed_bytes)} uncompressed)"
            f" in {known.get('storage_path', path)}\nConsistent at {optime(backup.last_write)}"
        )
    return Result(data, words)

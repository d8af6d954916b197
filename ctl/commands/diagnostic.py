"""`ctl diagnostic`: what whoever helps has to know, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agent.errors import ConfigError, Refused
from agent.version import VERSION
from agent.wire.events import EventFilter
from agent.wire.settings import Settings, masked
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.scrubbing import scrubbed

if TYPE_CHECKING:
    from agent.wire.operations import Operation
    from ctl.session import Session

OPERATIONS: Final = 200
EVENTS: Final = 20_000
ARCHIVE: Final = "tidelog-diagnostic.tar.gz"


@click.command("diagnostic")
@click.option(
    "--path",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where to write the report, on this host.",
)
@click.option("--op", "--opid", "op_id", metavar="OPID", help="Only this operation's story.")
@click.option("--archive", is_flag=True, help="One .tar.gz instead of files.")
@global_options
@pass_invocation
def command(invocation: Invocation, /, *, path: Path, op_id: str | None, archive: bool) -> None:
    """Write a report of settings, operations, events, agents and topology, without secrets."""

    async def run(session: Session) -> Result:
        report = await gather(session, op_id)
        where, names = write(path, report, archive=archive)
        data = {"path": str(where), "files": names}
        return Result(data, f"{where}\nWithout secrets; look through it before you hand it on.")

    invocation.perform(run)


async def gather(session: Session, op_id: str | None) -> dict[str, Any]:
    """`{file name: plain value}`, secrets taken out."""
    settings, version = await session.settings.read()
    if op_id is not None:
        operations = [await session.operations.get(op_id)]
    else:
        operations = await session.operations.recent(OPERATIONS)
    events = await session.events.tail(EventFilter(op_id=op_id), EVENTS)
    found: dict[str, Any] = {
        "version": {
            "ctl": VERSION,
            "platform": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cluster_id": await session.control.read_cluster_id(),
            "server_time": str((await session.control.now()).wall()),
        },
        "settings": {"version": version, "settings": masked(settings)},
        "operations": [_operation(operation) for operation in operations],
        "events": [event.to_json() for event in events],
        "leases": {name: lease.to_json() for name, lease in (await session.leases.held()).items()},
        "agents": [node.to_json() for node in await session.nodes.all()],
        "topology": (await session.topology()).to_json(),
        "backups": [backup.to_json() for backup in await session.catalog.backups()],
        "pitr": {
            "runs": [run.to_json() for run in await session.runs.runs()],
            "gaps": [gap.to_json() for gap in await session.runs.gaps()],
            "troubles": dict(await session.runs.troubles()),
        },
        "hello": json.loads(json.dumps(await session.hello(), default=str)),
    }
    known = _literals(settings.to_document())
    return {f"{name}.json": scrubbed(value, known) for name, value in found.items()}


def _operation(operation: Operation) -> dict[str, Any]:
    shown = operation.to_json()
    shown["settings"] = masked(Settings.from_document(operation.settings))
    return shown


def _literals(stored: Any) -> list[str]:
    """Every text that the stored settings hold below a secret's field: `{sealed: …}` and clear."""
    if isinstance(stored, dict):
        return [
            text
            for name, value in stored.items()
            for text in (
                [value]
                if isinstance(value, str) and name in ("sealed", "value")
                else _literals(value)
            )
        ]
    if isinstance(stored, list | tuple):
        return [text for value in stored for text in _literals(value)]
    return []


def write(directory: Path, report: dict[str, Any], *, archive: bool) -> tuple[Path, list[str]]:
    """Write the files, readable for this user only. Raises `Refused` where something is there."""
    bodies = {
        name: json.dumps(value, indent=1, default=str, ensure_ascii=False).encode()
        for name, value in report.items()
    }
    if archive:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, body in bodies.items():
                entry = tarfile.TarInfo(f"tidelog-diagnostic/{name}")
                entry.size, entry.mode = len(body), 0o600
                tar.addfile(entry, io.BytesIO(body))
        _put(directory / ARCHIVE, packed.getvalue())
        return directory / ARCHIVE, sorted(bodies)
    for name, body in bodies.items():
        _put(directory / name, body)
    return directory, sorted(bodies)


def _put(path: Path, body: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
    except FileExistsError:
        raise Refused(f"{path} is there already", hint="give another --path") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error

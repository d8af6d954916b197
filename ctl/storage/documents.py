"""What `ctl storage policy` and `lifecycle` share: where the settings come from, how documents are
shown. With `--file` no cluster is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from agent.wire.keys import parse_yaml
from agent.wire.profiles import MAIN, storage_in, storage_of
from agent.wire.storage_settings import StorageSettings
from ctl.invocation import Invocation, Result
from ctl.storage_settings import require_storage

if TYPE_CHECKING:
    from ctl.session import Session

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to paste: JSON, or the lines of a shell."""

    name: str
    words: str
    """What it is for, one sentence."""
    content: dict[str, Any] | list[Any] | str


def source_options(function: F) -> F:
    """`--profile` and `--file`."""
    profile = click.option(
        "--profile", default=MAIN, metavar="P", help="Storage profile.  [default: main]"
    )
    file = click.option(
        "--file",
        type=click.File(encoding="utf-8"),
        help="Take the storage from this file (- is stdin); needs no cluster.",
    )
    return profile(file(function))


def show(
    invocation: Invocation,
    profile: str,
    file: IO[str] | None,
    build: Callable[[StorageSettings], list[Document]],
) -> None:
    """Build the documents for the storage that is meant, and show them."""
    if file is not None:
        source = getattr(file, "name", "the file")
        storage = storage_in(parse_yaml(file.read(), source), source)
        invocation.output.show(as_result(build(storage)))
        return

    async def run(session: Session) -> Result:
        settings = await require_storage(session, profile)
        return as_result(build(storage_of(settings, profile)))

    invocation.perform(run)


def as_result(documents: list[Document]) -> Result:
    """For people with a line on each; as JSON by name."""
    lines = []
    for document in documents:
        lines += [f"# {document.name}: {document.words}", _written(document.content), ""]
    return Result({d.name: d.content for d in documents}, "\n".join(lines).rstrip())


def _written(content: dict[str, Any] | list[Any] | str) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=2)

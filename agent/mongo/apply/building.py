"""Building indexes from specifications as the server once listed them."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import OperationFailure

from agent.errors import RestoreFailed
from agent.mongo.apply.looking import when_known
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import CommandFailed, translated
from agent.wire.namespaces import split

DEFAULT_QUORUM: Final = "majority"
"""The server's own default waits for every voting member: with one of them down, for ever."""
_DUPLICATE: Final = 11000
_SIMPLE: Final = {"locale": "simple"}

Spec = dict[str, Any]


async def build(
    node: Node,
    namespace: str,
    specs: list[Spec],
    *,
    is_collated: bool,
    commit_quorum: str | int | None,
) -> None:
    """Build all indexes of one collection in one pass over it.

    Raises `RestoreFailed` naming the index and the key where a unique one finds duplicates,
    `CommandFailed`, `NodeUnavailable`.
    """
    wanted = [_explicit(spec) if is_collated else spec for spec in specs]
    try:
        await _create(node, namespace, wanted, commit_quorum)
    except CommandFailed as error:
        if error.code != _DUPLICATE or len(wanted) == 1:
            raise _explained(namespace, wanted, error) from error
    else:
        return
    # One that finds duplicates takes the others of its call with it: build those, then name it.
    failures: list[RestoreFailed] = []
    for spec in wanted:
        try:
            await _create(node, namespace, [spec], commit_quorum)
        except CommandFailed as error:
            failures.append(_explained(namespace, [spec], error))
    if failures:
        raise failures[0]


def _explicit(spec: Spec) -> Spec:
    """The server lists an index without a collation as if it had none to list, and gives it the
    collection's when it is built so."""
    return spec if "collation" in spec else {**spec, "collation": _SIMPLE}


async def _create(
    node: Node, namespace: str, specs: list[Spec], commit_quorum: str | int | None
) -> None:
    database, collection = split(namespace)
    command: Document = {"createIndexes": collection, "indexes": specs, "writeConcern": {"w": 1}}
    command["commitQuorum"] = DEFAULT_QUORUM if commit_quorum is None else commit_quorum

    async def run() -> None:
        with translated(f"building the indexes of {namespace}"):
            await node.command(database, command, timeout_s=LONG_TIMEOUT_S)

    await when_known(node, namespace, run)


def _explained(namespace: str, specs: list[Spec], error: CommandFailed) -> RestoreFailed:
    names = ", ".join(str(spec["name"]) for spec in specs)
    cause = error.__cause__
    details = (cause.details or {}) if isinstance(cause, OperationFailure) else {}
    if error.code == _DUPLICATE:
        return RestoreFailed(
            f"the unique index {names} of {namespace} cannot be built: several documents have the "
            f"key {details.get('keyValue')}",
            hint="the data are restored; remove the duplicates and build the index by hand",
        )
    return RestoreFailed(f"the index {names} of {namespace} cannot be built: {error.message}")

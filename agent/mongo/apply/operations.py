"""`applyOps`: carrying out operations of an oplog.

An array of inserts, updates and deletes on collections that exist is one transaction: all or
nothing, one oplog entry. With a command in it, operations are carried out one by one up to the
first that fails. `alwaysUpsert: false` makes an update of a missing document fail instead of
leaving a fragment behind; where operations are applied a second time, documents may rightly be
missing, and the fragment disappears with the delete that follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DocumentTooLarge, OperationFailure

from agent.errors import LeaseLost, PermissionDenied, RestoreFailed
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.dropping import once_dropped
from agent.mongo.apply.looking import LOOK_S, STATUS_NOT_KNOWN, make_look, when_known
from agent.mongo.node import Document, Node
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed, translated
from agent.wire.namespaces import split

APPLY_TIMEOUT_S: Final = 100.0
_TRIES: Final = 20
_TOO_LARGE: Final = frozenset({257, 388, 10334, 17420})
"""The transaction is too large, for an entry or for the cache."""
_UPDATE_OF_NOTHING: Final = 218
_UNNAMED_DUPLICATE: Final = "KeyString format error"
_RAW: Final = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_LENIENT: Final = CodecOptions(
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)


async def apply_writes(
    node: Node,
    operations: list[RawDocument],
    *,
    is_lenient: bool,
    fence: RawDocument | None = None,
) -> None:
    """Carry out inserts, updates and deletes, each array wholly or not at all; with a `fence` (see
    `fencing`), not at all once that is taken down.

    Raises `RestoreFailed` naming the operation that the server refuses, `LeaseLost` where the fence
    is gone, `NodeUnavailable`.
    """
    again = partial(apply_writes, node, is_lenient=is_lenient, fence=fence)
    # First: with a collection in it that is not there, an array is carried out one by one.
    sent = operations if fence is None else [fence, *operations]
    try:
        await _apply_known(node, sent, is_lenient=is_lenient)
    except CommandFailed as error:
        if error.code in _TOO_LARGE and len(operations) > 1:
            middle = len(operations) // 2
            await again(operations[:middle])
            await again(operations[middle:])
            return
        if fence is not None and error.code == NAMESPACE_NOT_FOUND and _place(error) == 0:
            raise LeaseLost("another worker writes to the target now") from error
        if is_unnamed_duplicate(error.message):
            replacing = [_replacing(operation) for operation in operations]
            if replacing != operations:
                await again(replacing)
                return
        raise _explained(error, sent) from error


def is_unnamed_duplicate(message: str) -> bool:
    """Whether a document is there already, and the server fails to say so. Clustered collections
    keep of an `_id` only its order, from which decimals with a fraction cannot be told."""
    return _UNNAMED_DUPLICATE in message


def _replacing(operation: RawDocument) -> RawDocument:
    """An insert as the update that replaces the document or makes it; others as they are."""
    written = bson.decode(operation.raw, _RAW)
    if written["op"] != "i":
        return operation
    document = written["o"]
    fields = {**written, "op": "u", "o2": {"_id": document["_id"]}, "b": True}
    return RawDocument(bson.encode(fields, codec_options=_RAW))


async def apply_commands(node: Node, commands: Sequence[Document]) -> None:
    """Carry out operations of which some are commands, in order, one by one.

    The server takes several of them in one call from superusers only (it checks the privileges of
    each, and then refuses the array all the same); for others each goes in a call of its own. They
    wait for a database that is being dropped. Raises `CommandFailed`, `NodeUnavailable`,
    `PermissionDenied`.
    """
    await once_dropped(partial(_apply_commands, node, commands))


async def _apply_commands(node: Node, commands: Sequence[Document]) -> None:
    try:
        await _apply(node, commands, is_lenient=True)
    except PermissionDenied:
        if len(commands) < 2:
            raise
    except CommandFailed as error:
        if error.code != STATUS_NOT_KNOWN:
            raise
    else:
        return
    for command in commands:
        await when_known(node, _subject(command), partial(_apply, node, [command], is_lenient=True))


def _subject(command: Document) -> str:
    """The collection that an operation is about."""
    if command["op"] != "c":
        return str(command["ns"])
    name, value = next(iter(command["o"].items()))
    return str(value) if name == "renameCollection" else f"{split(command['ns'])[0]}.{value}"


async def _apply_known(node: Node, operations: list[RawDocument], *, is_lenient: bool) -> None:
    """A shard that has just created or renamed a collection does not know whether it is sharded,
    and says so before a delete. Plain commands make it look; `applyOps` does not."""
    for left in reversed(range(_TRIES)):
        try:
            await _apply(node, operations, is_lenient=is_lenient)
        except CommandFailed as error:
            if error.code != STATUS_NOT_KNOWN or not left:
                raise
            refused = _failed(error, operations)
            if refused is not None:
                await make_look(node, refused["ns"])
            await asyncio.sleep(LOOK_S)
        else:
            return


def _failed(error: CommandFailed, operations: list[RawDocument]) -> Document | None:
    """The operation that the server refused."""
    place = _place(error)
    if not 0 <= place < len(operations):
        return None
    return bson.decode(operations[place].raw, _LENIENT)


def _place(error: CommandFailed) -> int:
    """Of the operation that the server refused; -1 where it does not say."""
    cause = error.__cause__
    details = (cause.details or {}) if isinstance(cause, OperationFailure) else {}
    return int(details.get("applied", 0)) - 1  # counted from one, to the one that failed


async def _apply(node: Node, operations: Sequence[Any], *, is_lenient: bool) -> None:
    command: Document = {
        "applyOps": operations,
        "alwaysUpsert": is_lenient,
        "bypassDocumentValidation": True,
        "writeConcern": {"w": 1},
    }
    with translated(f"applying {len(operations)} operations"):
        try:
            await node.command("admin", command, timeout_s=APPLY_TIMEOUT_S)
        except DocumentTooLarge as error:
            raise CommandFailed(str(error), code=10334) from error


def _explained(error: CommandFailed, operations: list[RawDocument]) -> RestoreFailed:
    cause = error.__cause__
    details = (cause.details or {}) if isinstance(cause, OperationFailure) else {}
    operation = _failed(error, operations)
    if operation is None:
        return RestoreFailed(error.message)
    named = operation["o2"] if "o2" in operation else operation["o"]
    what = {"i": "the insert", "u": "the update", "d": "the delete"}[operation["op"]]
    about = f"{what} of {{_id: {named.get('_id')!r}}} in {operation['ns']}"
    if error.code == _UPDATE_OF_NOTHING:
        return RestoreFailed(
            f"{about} found no such document: chunks and oplog of the backup do not fit",
            hint="restore from another backup, and report this one",
        )
    return RestoreFailed(f"{about} failed: {details.get('errmsg', error.message)}")

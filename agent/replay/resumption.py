"""Going on where another worker stopped, on a target that may be ahead of the last checkpoint.

Writes may be repeated: they converge. Commands may not: a collection that was created, renamed or
dropped after the checkpoint is on the target as it was *then*. So each worker leaves a marker on
the target, in the same `applyOps` call as each command, and whoever resumes knows which commands
are done: all up to the marker, and perhaps those of the next entry. Until these have passed,
collections are addressed by the names they really have, and writes to those that are gone are left
out. After that, what is there must be what the catalogue says.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.errors import RestoreFailed
from agent.replay.catalogue import Catalogue, Collection
from agent.replay.commands import Command, Effect


class Resumption:
    """`actual` are the names of the target's collections by their UUIDs; `marker` is the packed
    OpTime of the last entry whose commands are known to be done."""

    def __init__(self, catalogue: Catalogue, actual: Mapping[bytes, str], marker: int) -> None:
        self._catalogue = catalogue
        self._actual = actual
        self.marker = marker
        self._doubtful: int | None = None
        """The entry after the marker whose commands may be done."""

    def begin(self) -> None:
        """From here on writes go to the target: address its collections as they are."""
        for collection in self._catalogue:
            self.occupy(collection)

    def occupy(self, collection: Collection) -> None:
        """Address one collection by the name that it really has."""
        if collection.is_ignored or collection.is_lazy:
            return
        actual = self._actual.get(collection.target_uuid)
        collection.is_missing = actual is None
        if actual is not None and actual != collection.target_ns:
            collection.place(actual)

    def is_over(self, position: int) -> bool:
        """Whether commands at `position` are surely not done yet."""
        return self._doubtful is not None and position > self._doubtful

    def left_to_do(self, position: int, commands: list[Command]) -> list[Command]:
        """Those commands of the entry after the marker that are not in effect yet. An entry that
        asks nothing of the target leaves no marker, so it is not the one in doubt."""
        if commands:
            self._doubtful = position
        return [command for command in commands if not self._is_done(command)]

    def _is_done(self, command: Command) -> bool:
        actual = self._actual.get(command.target_uuid)
        if command.effect is Effect.CREATE:
            return actual is not None
        if command.effect is Effect.DROP:
            return actual is None
        return command.effect is Effect.RENAME and actual == command.target_ns

    def end(self) -> None:
        """The doubtful entry is done: catalogue and target have to be the same now."""
        for collection in self._catalogue:
            if collection.is_missing:
                raise RestoreFailed(
                    f"{collection.target_ns} vanished from the target while the restore was "
                    "interrupted",
                    hint="keep others from changing the target, and run the restore again",
                )
        self._catalogue.settle()

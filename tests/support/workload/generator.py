"""Which action comes next. A pure function of seed, databases and weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from tests.support.workload import ddl, dml, indexing, transactions
from tests.support.workload.actions import Action
from tests.support.workload.model import Catalogue

Maker = Callable[[random.Random, Catalogue], Action]

_MAKERS: Final[dict[str, Maker]] = {
    "insert_one": dml.insert_one,
    "insert_many": dml.insert_many,
    "update_operators": dml.update_operators,
    "replace": dml.replace,
    "pipeline_update": dml.pipeline_update,
    "delete": dml.delete,
    "upsert": dml.upsert,
    "find_and_modify": dml.find_and_modify,
    "bulk": dml.bulk,
    "array_push": dml.array_push,
    "field_order": dml.field_order,
    "move_unique": dml.move_unique,
    "measure": dml.measure,
    "txn_small": transactions.small,
    "txn_aborted": transactions.aborted,
    "txn_creating": transactions.creating,
    "txn_prepared": transactions.prepared,
    "txn_prepared_aborted": transactions.prepared_aborted,
    "txn_large": transactions.large,
    "txn_large_prepared": transactions.large_prepared,
    "create": ddl.create,
    "recreate": ddl.recreate,
    "drop": ddl.drop,
    "rename": ddl.rename,
    "rename_over": ddl.rename_over,
    "change_collection": ddl.change_collection,
    "convert_to_capped": ddl.convert_to_capped,
    "output": ddl.output,
    "drop_database": ddl.drop_database,
    "create_view": ddl.create_view,
    "change_view": ddl.change_view,
    "create_index": indexing.create_index,
    "drop_index": indexing.drop_index,
    "change_index": indexing.change_index,
    "fail_build": indexing.fail_build,
    "abort_build": indexing.abort_build,
}

DML_ONLY: Final[Mapping[str, float]] = {
    "insert_one": 10,
    "insert_many": 4,
    "update_operators": 12,
    "replace": 6,
    "pipeline_update": 5,
    "delete": 6,
    "upsert": 6,
    "find_and_modify": 5,
    "bulk": 4,
    "array_push": 8,
    "field_order": 6,
    "move_unique": 6,
    "measure": 4,
    "txn_small": 5,
    "txn_aborted": 2,
}

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {
    **DML_ONLY,
    "txn_creating": 1,
    "create": 4,
    "recreate": 1.5,
    "drop": 1.5,
    "rename": 2,
    "rename_over": 1,
    "change_collection": 2,
    "convert_to_capped": 0.5,
    "output": 1,
    "drop_database": 0.3,
    "create_view": 1.5,
    "change_view": 1.5,
    "create_index": 5,
    "drop_index": 2,
    "change_index": 2,
    "fail_build": 0.7,
    "abort_build": 0.7,
}
"""Large and prepared transactions come on request only."""


class Generator:
    """An endless sequence of actions."""

    def __init__(
        self,
        seed: int,
        databases: tuple[str, ...],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        chosen = DEFAULT_WEIGHTS if weights is None else weights
        unknown = sorted(set(chosen) - set(_MAKERS))
        if unknown:
            raise ValueError(f"unknown actions {unknown}")
        self._random = random.Random(seed)
        self._catalogue = Catalogue(databases)
        self._makers = [_MAKERS[name] for name in chosen]
        self._bounds = list(accumulate(chosen.values()))

    def __iter__(self) -> Iterator[Action]:
        while True:
            yield self.next()

    def next(self) -> Action:
        """The next action."""
        maker = self._random.choices(self._makers, cum_weights=self._bounds)[0]
        return maker(self._random, self._catalogue)

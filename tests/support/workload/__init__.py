"""A seeded stream of writes and DDL, and a data set with one of everything."""

from tests.support.workload.actions import Action, Mode
from tests.support.workload.generator import DEFAULT_WEIGHTS, DML_ONLY, Generator
from tests.support.workload.runner import Stats, Workload
from tests.support.workload.seed import seed_everything

__all__ = [
    "DEFAULT_WEIGHTS",
    "DML_ONLY",
    "Action",
    "Generator",
    "Mode",
    "Stats",
    "Workload",
    "seed_everything",
]

"""The truth about a past moment must itself be proved: against the live set, held still then."""

from __future__ import annotations

import pytest

from tests.support.compare import assert_same, diff, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.oracle import Oracle
from tests.support.workload import DEFAULT_WEIGHTS, Workload

WEIGHTS = {**DEFAULT_WEIGHTS, "txn_prepared": 1.0, "txn_prepared_aborted": 1.0}


@pytest.mark.parametrize("nodes", ["one_node", "three_nodes"])
def test_oracle_knows_the_set_as_it_was(request: pytest.FixtureRequest, nodes: str) -> None:
    replset: ReplicaSet = request.getfixturevalue(nodes)
    client = replset.client()
    with Oracle(replset) as oracle:
        with Workload(client, 8, weights=WEIGHTS, rate=0) as workload:
            eventually(lambda: workload.stats().total > 200, 20)
            with workload.quiesced() as first:
                then = fingerprint(client)
            eventually(lambda: workload.stats().total > 300, 20)
            with workload.quiesced() as second:
                later = fingerprint(client)
        assert_same(then, oracle.fingerprint(first))
        assert_same(later, oracle.fingerprint(second))
        assert diff(then, later)

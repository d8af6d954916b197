"""Transactions over several shards, as mongos runs them: one logical session, two-phase commit.

Every participant gets the same session id and transaction number; the first one coordinates. The
oplogs then hold what they hold in production: `prepare` and `commitTransaction` entries on each
shard, with one commit timestamp.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from bson import Int64, Timestamp
from bson.binary import Binary, UuidRepresentation
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError

from tests.support.mongod.sharded import ShardedCluster


class CrossShardSession:
    """One session; one transaction at a time. Not for use by two threads at once."""

    def __init__(self, cluster: ShardedCluster) -> None:
        self.lsid = {"id": Binary.from_uuid(uuid.uuid4(), UuidRepresentation.STANDARD)}
        self.number = Int64(0)
        self.participants: list[str] = []
        self._cluster = cluster
        self._sessions: dict[str, ClientSession] = {}
        self._own_ids: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.participants:
            self.abort()
        for shard, session in self._sessions.items():
            # It goes back to the client's pool, where nobody else may meet our transactions.
            session._server_session.session_id = self._own_ids[shard]
            session.end_session()

    def begin(self) -> None:
        """Start the next transaction."""
        assert not self.participants, "a transaction is open"
        self.number = Int64(self.number + 1)

    def run(self, shard: str, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """One statement on one shard; the first one of the transaction decides who coordinates."""
        fields: dict[str, Any] = {"txnNumber": self.number, "autocommit": False}
        if shard not in self.participants:
            fields["startTransaction"] = True
            if not self.participants:
                fields["coordinator"] = True
            self.participants.append(shard)
        answer = self._send(shard, database, {**command, **fields})
        if answer.get("writeErrors"):
            raise OperationFailure(str(answer["writeErrors"]), answer["writeErrors"][0]["code"])
        return answer

    def commit(self) -> dict[str, Any]:
        """Commit on all participants or on none; after an error the outcome is not known here.
        The server answers once the decision is durable, before all participants have carried it
        out."""
        participants, self.participants = self.participants, []
        fields = {"txnNumber": self.number, "autocommit": False, "writeConcern": {"w": "majority"}}
        if len(participants) == 1:
            return self._send(participants[0], "admin", {"commitTransaction": 1, **fields})
        listed = [{"shardId": shard} for shard in participants]
        order = {"coordinateCommitTransaction": 1, "participants": listed, **fields}
        return self._send(participants[0], "admin", order)

    def prepare(self) -> Timestamp:
        """Prepare on all participants, as a coordinator would; the least timestamp at which the
        transaction may commit."""
        fields = {"txnNumber": self.number, "autocommit": False, "writeConcern": {"w": "majority"}}
        found: list[Timestamp] = [
            self._send(shard, "admin", {"prepareTransaction": 1, **fields})["prepareTimestamp"]
            for shard in self.participants
        ]
        return max(found)

    def carry_out(self, at: Timestamp | None) -> None:
        """Commit what is prepared, at this timestamp, or abort it; without a coordinator."""
        participants, self.participants = self.participants, []
        order: dict[str, Any] = {"abortTransaction": 1}
        if at is not None:
            order = {"commitTransaction": 1, "commitTimestamp": at}
        for shard in participants:
            self._send(shard, "admin", {**order, "txnNumber": self.number, "autocommit": False})

    def abort(self) -> None:
        """Abort on all participants; one that aborted by itself or is gone is left."""
        participants, self.participants = self.participants, []
        fields = {"txnNumber": self.number, "autocommit": False}
        for shard in participants:
            try:
                self._send(shard, "admin", {"abortTransaction": 1, **fields})
            except PyMongoError:
                continue

    def _send(self, shard: str, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        client = self._cluster.client_of(shard)
        return dict(client[database].command(dict(command), session=self._session(shard)))

    def _session(self, shard: str) -> ClientSession:
        if shard not in self._sessions:
            session = self._cluster.client_of(shard).start_session(causal_consistency=False)
            # A client draws an id for each session; all shards must be told the same one.
            session._materialize()
            self._own_ids[shard] = session._server_session.session_id
            session._server_session.session_id = self.lsid
            self._sessions[shard] = session
        return self._sessions[shard]

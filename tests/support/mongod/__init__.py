"""Replica sets and sharded clusters of real mongod processes."""

from tests.support.mongod.binary import find_mongod
from tests.support.mongod.machine import HERE, Machine
from tests.support.mongod.node import MongodNode
from tests.support.mongod.options import Auth, Member, SetOptions
from tests.support.mongod.replset import ReplicaSet
from tests.support.mongod.sharded import ClusterOptions, ShardedCluster

__all__ = [
    "HERE",
    "Auth",
    "ClusterOptions",
    "Machine",
    "Member",
    "MongodNode",
    "ReplicaSet",
    "SetOptions",
    "ShardedCluster",
    "find_mongod",
]

"""Replica sets of real mongod processes."""

from tests.support.mongod.binary import find_mongod
from tests.support.mongod.node import MongodNode
from tests.support.mongod.options import Auth, Member, SetOptions
from tests.support.mongod.replset import ReplicaSet

__all__ = ["Auth", "Member", "MongodNode", "ReplicaSet", "SetOptions", "find_mongod"]

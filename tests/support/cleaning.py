"""Takes a replica set back to where a test may begin."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient

_SERVERS_OWN = frozenset({"admin", "config", "local"})


def clean(client: MongoClient[dict[str, Any]], *, keep_user: str | None = None) -> None:
    """Drop every database, Tidelog's own collections, and all users and roles but `keep_user`."""
    for database in client.list_database_names():
        if database not in _SERVERS_OWN:
            client.drop_database(database)
    for collection in client.admin.list_collection_names():
        if not collection.startswith("system.") or collection == "system.views":
            client.admin.drop_collection(collection)
    for user in client.admin["system.users"].find({"user": {"$ne": keep_user}}):
        client[user["db"]].command("dropUser", user["user"])
    for role in client.admin["system.roles"].find():
        client[role["db"]].command("dropRole", role["role"])

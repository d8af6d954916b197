"""`python -m tests.support.servers.aliyun PORT DIRECTORY`: all services at one port.

A request to OSS is told by its signature, one of STS or KMS by its form. `/~control/…` is for
tests; `/latest/…` is the metadata of an instance, `/credentials` the URI of a container.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.servers.aliyun.accounts import Accounts
from tests.support.servers.aliyun.oss import Oss
from tests.support.servers.aliyun.rpc import RpcServices, spelled

TOKEN = "a-token-of-the-metadata"
INSTANCE_ROLE = "backup-role"


class Cloud:
    """All of it."""

    def __init__(self, directory: Path) -> None:
        self.accounts = Accounts()
        self.oss = Oss(self.accounts, directory)
        self.rpc = RpcServices(self.accounts)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if request.path.startswith("/~control/"):
            return web.json_response(self._control(request.path[10:], await request.json()))
        if request.path.startswith("/latest/"):
            return self._metadata(request)
        if request.path == "/credentials":
            return web.json_response({"Code": "Success", **spelled(self.accounts.session())})
        kind = request.headers.get("Content-Type", "")
        is_form = kind.startswith("application/x-www-form-urlencoded")
        if "Action" in request.query or (request.method == "POST" and is_form):
            return await self.rpc.handle(request)
        return await self.oss.handle(request)

    def _metadata(self, request: web.Request) -> web.Response:
        if request.method == "PUT" and request.path == "/latest/api/token":
            is_asked = "X-aliyun-ecs-metadata-token-ttl-seconds" in request.headers
            return web.Response(text=TOKEN) if is_asked else web.Response(status=400)
        if request.headers.get("X-aliyun-ecs-metadata-token") != TOKEN:
            return web.Response(status=403)
        name = request.path.removeprefix("/latest/meta-data/ram/security-credentials/")
        if name == "":
            return web.Response(text=INSTANCE_ROLE)
        if name != INSTANCE_ROLE:
            return web.Response(status=404)
        return web.json_response({"Code": "Success", **spelled(self.accounts.session())})

    def _control(self, what: str, given: dict[str, Any]) -> Any:
        if what == "account":
            self.accounts.add(given["key"], given["secret"], set(given.get("denied", ())))
        elif what == "session":
            found = self.accounts.session(set(given.get("denied", ())), given.get("lifetime_s"))
            return spelled(found)
        elif what == "role":
            self.accounts.roles[given["arn"]] = set(given.get("denied", ()))
        elif what == "end-sessions":
            for account in self.accounts.by_key.values():
                account.expires_at = 0.0 if account.token else None
        elif what == "lifetime":
            self.accounts.lifetime_s = given["seconds"]
        elif what == "faults":
            self.oss.wrong_bodies = given["wrong_bodies"]
        elif what == "versioning":
            self.oss.objects.is_versioned = given["on"]
        elif what == "bucket":
            self.oss.locked_days = given.get("locked_days", 0)
            self.oss.default_encryption = given.get("default_encryption")
        elif what == "key":
            return self.rpc.new_key(given.get("alias"))
        elif what == "key-state":
            self._set_key(given)
        elif what == "seen":
            return {"oss": self._drained(self.oss.seen), "rpc": self._drained(self.rpc.calls)}
        elif what == "object":
            stored = self.oss.objects.by_name.get(given["name"])
            if stored is not None and "flip" in given:
                body = bytearray(stored.path.read_bytes())
                body[given["flip"]] ^= 0xFF
                stored.path.write_bytes(body)
            return None if stored is None else {"size": stored.size, **stored.headers}
        elif what == "page-of-uploads":
            self.oss.page_of_uploads = given["most"]
        elif what == "uploads":
            under_way = self.oss.objects.uploads.values()
            return [each.name for each in under_way if each.name.startswith(given["prefix"])]
        else:
            raise web.HTTPNotFound
        return None

    def _set_key(self, given: dict[str, Any]) -> None:
        if given["state"] == "deleted":
            del self.rpc.keys[given["id"]]
            return
        key = self.rpc.keys[given["id"]]
        key.state, key.delete_on = given["state"], given.get("delete_on", "")

    @staticmethod
    def _drained(seen: list[dict[str, str]]) -> list[dict[str, str]]:
        copy = list(seen)
        seen.clear()
        return copy


def main() -> None:
    """Serve until killed."""
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", Cloud(directory).handle)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()

"""Who may read, and what every answer carries.

With a token: `Authorization: Bearer TOKEN`, or HTTP Basic with the token as password, so that a
browser asks for it by itself. Without one the agent listens on loopback, and then a request must
name a loopback host: a page of somebody else, in a browser on this machine, could otherwise reach
the agent under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from agent.config import is_loopback
from agent.errors import ConfigError, TidelogError

MAX_AT_ONCE: Final = 16
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered without a token too, in one word: supervisors have none."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
        " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access:
    """The middleware. `token` answers the token as it is now, None where there is none."""

    def __init__(self, token: Callable[[], str | None]) -> None:
        self._token = token
        self._at_once = 0

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse, or let through; either way with the headers."""
        if self._at_once >= MAX_AT_ONCE:
            return _with_headers(web.Response(status=503, text="too many requests at once\n"))
        self._at_once += 1
        try:
            answer = await self._answer(request, handler)
        except web.HTTPException as refusal:
            answer = web.Response(status=refusal.status, text=f"{refusal.reason}\n".lower())
            if "Allow" in refusal.headers:
                answer.headers["Allow"] = refusal.headers["Allow"]
        except TidelogError as error:
            answer = web.Response(status=503, text=f"{error}\n")
        finally:
            self._at_once -= 1
        return _with_headers(answer)

    def may_see_all(self, request: web.Request) -> bool:
        """Whether the reader is one who may read everything, also on the open paths. Raises
        `ConfigError` when the token cannot be read."""
        token = self._token()
        return _names_loopback(request) if token is None else _shows(request, token)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            is_open = self._token() is None
            may_see_all = self.may_see_all(request)
        except ConfigError:
            # What cannot be read cannot be compared with: nobody gets in.
            return web.Response(status=503, text="the token of this agent cannot be read\n")
        if is_open and not may_see_all:
            return web.Response(status=403, text="this agent answers loopback names only\n")
        if not may_see_all and request.path not in OPEN_PATHS:
            headers = {"WWW-Authenticate": 'Basic realm="tidelog", charset="UTF-8"'}
            return web.Response(status=401, text="a token is needed\n", headers=headers)
        return await handler(request)


def _with_headers(answer: web.StreamResponse) -> web.StreamResponse:
    answer.headers.update(HEADERS)
    return answer


def _shows(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    shown = given.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(shown, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return False
        shown = decoded.partition(":")[2]
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode())


def _names_loopback(request: web.Request) -> bool:
    host = request.host
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)

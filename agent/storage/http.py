"""The HTTP client of drivers that bring no own: trust, proxies and pools in one place."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

from agent.errors import ConfigError
from agent.storage.surroundings import Surroundings
from agent.wire.secrets import Plain

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0


def new_session(
    surroundings: Surroundings, *, authority: Plain | None, skip_verification: bool
) -> aiohttp.ClientSession:
    """A client, as a context. `authority` is a PEM to trust beside those of the system; proxies
    come from the environment. Raises `ConfigError`.

    The pool has no limit: a stream that waits for its reader holds a connection, and a reader that
    stores something between two blocks must get another. `Pace` limits what is under way.
    """
    context = ssl.create_default_context()
    if skip_verification:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority is not None:
        try:
            context.load_verify_locations(cadata=surroundings.secrets.text(authority))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError("endpointCA holds no PEM certificates") from error
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=0),
        trust_env=True,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        ),
    )

"""One notice to one webhook, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import aiohttp

from agent.errors import Transient
from agent.version import VERSION
from agent.wire.notices import Notice, body, headers
from agent.wire.notify_settings import WebhookSettings
from agent.wire.secrets import Plain

WITHIN_S: Final = 10.0
READ_AT_MOST: Final = 200


class NotTaken(Transient):
    """The receiver did not answer, or not with 2xx."""


class Delivery:
    """Sends; `text_of` reads a secret where it lies. A context manager."""

    def __init__(self, text_of: Callable[[Plain], str]) -> None:
        self._text_of = text_of
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=WITHIN_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
            headers={"User-Agent": f"tidelog/{VERSION}"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, webhook: WebhookSettings, notice: Notice, timestamp: int) -> None:
        """Raises `NotTaken`, and `ConfigError` for a secret that cannot be read. Redirects are not
        followed: what is signed for one place goes to no other."""
        assert self._session is not None, "outside the context"
        secret = None if webhook.secret is None else self._text_of(webhook.secret)
        content = body(notice, webhook.format)
        try:
            async with self._session.post(
                webhook.url,
                data=content,
                headers=headers(notice, content, timestamp, secret),
                allow_redirects=False,
            ) as answer:
                if 200 <= answer.status < 300:
                    return
                said = (await answer.content.read(READ_AT_MOST)).decode("utf-8", "replace")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = str(error) or f"no answer within {WITHIN_S:g} s"
            raise NotTaken(f"the webhook did not answer: {reason}") from error
        raise NotTaken(f"the webhook answered {answer.status}: {' '.join(said.split())}")

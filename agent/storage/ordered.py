"""Listings in byte order from servers that promise it, and from those that do not keep to it.

Pages are passed on as they come while they are in order. Where one is not (another implementation,
a hierarchical namespace), everything is drawn first and sorted here, from then on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import pairwise

from agent.errors import IntegrityError
from agent.storage.base import ObjectInfo

Pages = Callable[[str, str | None], AsyncIterator[list[ObjectInfo]]]
"""All pages below a prefix; the second one is a hint that what is not greater is not wanted."""


class OrderedListing:
    """Lists one repository."""

    def __init__(self, pages: Pages, address: str) -> None:
        self._pages = pages
        self._address = address
        self._is_ordered = True

    async def keys(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        """See `agent.storage.base.Storage.list`."""
        last: bytes | None = None
        if self._is_ordered:
            async for page in self._pages(prefix, after):
                if not self._check(last, page):
                    if last is not None:
                        raise IntegrityError(
                            f"{self._address} lists keys out of order",
                            hint="try again: from now on the keys are sorted here",
                        )
                    break
                for found in page:
                    if after is None or found.key.encode() > after.encode():
                        yield found
                last = page[-1].key.encode() if page else last
            else:
                return
        everything = [found async for page in self._pages(prefix, None) for found in page]
        for found in sorted(everything, key=lambda found: found.key.encode()):
            if after is None or found.key.encode() > after.encode():
                yield found

    def _check(self, last: bytes | None, page: list[ObjectInfo]) -> bool:
        names = [found.key.encode() for found in page]
        before = [last] if last is not None and names else []
        if not all(a < b for a, b in pairwise([*before, *names])):
            self._is_ordered = False
        return self._is_ordered

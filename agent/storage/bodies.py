"""Bodies of requests as aiohttp sends them piece by piece."""

from __future__ import annotations

from io import BytesIO


class RequestBody(BytesIO):
    """Bytes that are not copied. aiohttp measures them by the buffer, which would copy them; and
    it is closed after the request, since the client's garbage holds on to it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data

    def getbuffer(self) -> memoryview:
        """The bytes themselves."""
        return memoryview(self._data)

    def close(self) -> None:
        """Let go of the bytes."""
        super().close()
        self._data = b""

"""moto: instance metadata, KMS, and an STS that checks nothing."""

from __future__ import annotations

import socket
import time
from functools import cache
from typing import Final

from tests.support.mongod.ports import free_port
from tests.support.servers.process import ServerFailedError, ServerProcess, program

READY_WITHIN_S: Final = 60.0


class Moto:
    """A running server."""

    def __init__(self) -> None:
        self._process = ServerProcess("moto")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process.start([program("moto_server"), "-H", "127.0.0.1", "-p", str(self._port)])
        end = time.monotonic() + READY_WITHIN_S
        while True:
            self._process.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            if time.monotonic() > end:
                raise ServerFailedError("moto does not listen")
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill it."""
        self._process.stop()


@cache
def shared_moto() -> Moto:
    """The one of this test run, started when it is first asked for."""
    server = Moto()
    server.start()
    return server

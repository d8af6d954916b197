"""Loopback ports for servers.

They are taken below the range from which the kernel picks ports for outgoing connections: a server
that is stopped and started again must find its port free.
"""

from __future__ import annotations

import os
import random
import socket
import threading

_FIRST, _LAST = 20_000, 31_999
_SHARES = 4
_share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
"""Tests that run side by side take from ranges of their own: between our look at a port and the
server's there is a moment in which another process could take it."""
_random = random.Random(os.getpid())
_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A port nobody listens on, never given out twice by this process."""
    with _lock:
        for _ in range(1_000):
            port = _FIRST + _random.randrange(_share, _LAST - _FIRST, _SHARES)
            if port not in _given and _is_free(port):
                _given.add(port)
                return port
    raise RuntimeError("no free port on the loopback interface")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

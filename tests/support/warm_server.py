"""A process that has imported the product already and forks once for each start of a program.

Importing takes half a second of CPU for `ctl` and nearly one for an agent; the outer rings start
them thousands of times. What is forked is what `python -m ctl` or `python -m agent` would be by
then: no thread runs and no connection is open, and of the environment only `TIDELOG_FAULTS` is read
while importing.

    python -m tests.support.warm_server FD      FD: a listening Unix socket; ends with its stdin

A request is four bytes of length and JSON (`program`, `arguments`, `environment`, `directory`,
`namespace`), the three standard streams attached. Answers: the process id, and its exit status once
it has ended (as `subprocess` has it), each as four signed bytes. A client that hangs up has its
program killed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import struct
import sys

import ctl.commands
from agent import faults

_NUMBER = struct.Struct("<i")
_LENGTH = struct.Struct("<I")
_MAINS = ("ctl.__main__", "agent.__main__")
_PRELOADED = ("agent.service", "aiobotocore.session")


def main(descriptor: int) -> None:
    """Serve; returns in each forked program, ready to run as `__main__`."""
    for found in pkgutil.iter_modules(ctl.commands.__path__, "ctl.commands."):
        importlib.import_module(found.name)
    for name in (*_MAINS, *_PRELOADED):
        importlib.import_module(name)
    for name in _MAINS:
        del sys.modules[name]  # `runpy` warns of a `__main__` that is imported already
    listening = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that attend to a client leave no zombie
    gc.collect()
    gc.freeze()  # pages that are not touched stay shared
    while True:
        ready, _, _ = select.select([listening.fileno(), 0], [], [])
        if 0 in ready:
            os._exit(0)
        client, _ = listening.accept()
        if os.fork():
            client.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listening.close()
        program = _attend(client)
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return


def _attend(client: socket.socket) -> str:
    """Fork the program and stay with it to its end; returns its name in the program itself."""
    head, streams, _, _ = socket.recv_fds(client, _LENGTH.size, 3)
    left = _LENGTH.unpack(head)[0]
    text = b""
    while len(text) < left:
        text += client.recv(left - len(text))
    asked = json.loads(text)
    pid = os.fork()
    if not pid:
        client.close()
        _become(asked, streams)
        return str(asked["program"])
    for stream in streams:
        os.close(stream)
    client.sendall(_NUMBER.pack(pid))
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([ended, client.fileno()], [], [])
    if ended not in ready:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        client.sendall(_NUMBER.pack(status))
    except OSError:  # it hung up
        os._exit(1)
    os._exit(0)


def _become(asked: dict[str, object], streams: list[int]) -> None:
    """Take over streams, environment, directory and arguments of a program of its own session."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    environment, arguments = asked["environment"], asked["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(asked["directory"]))
    if asked["namespace"]:
        _enter(str(asked["namespace"]))
    sys.argv = [str(asked["program"]), *arguments]
    faults.arm(environment.get("TIDELOG_FAULTS", ""))
    random.seed()  # else every program would draw the same numbers


def _enter(namespace: str) -> None:
    """Go into a network namespace, given its file."""
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Where a process runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The address that a process listens at, and what goes before its command line to get there."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


HERE = Machine()
"""This one, by its loopback address."""

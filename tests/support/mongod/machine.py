"""Where a process runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The address that a process listens at, and the network namespace it runs in if not ours."""

    address: str = "127.0.0.1"
    namespace: str = ""
    """Its file."""

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command line to get there."""
        return ("nsenter", f"--net={self.namespace}", "--") if self.namespace else ()


HERE = Machine()
"""This one, by its loopback address."""

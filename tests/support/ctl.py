"""The client as its users run it: a process, an exit status, JSON on standard output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support import warm
from tests.support.product import command_of, environment


@dataclass(frozen=True)
class CtlResult:
    """What a run left behind; `value` is the parsed output, or None if it is not JSON."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """The JSON it printed."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            return None

    def __str__(self) -> str:
        line = " ".join(self.arguments)
        return f"ctl {line}\nstatus {self.status}\n{self.stdout}\n{self.stderr}"


class Ctl:
    """Runs `ctl` against one cluster."""

    def __init__(
        self, uri: str, *, extra: Mapping[str, str] | None = None, is_warm: bool = True
    ) -> None:
        self._is_warm = is_warm
        self._extra = {"TIDELOG_MONGODB_URI": uri, **(extra or {})}

    def command(self, *arguments: str, out: str | None = "json") -> list[str]:
        """The whole command line."""
        return [*command_of("ctl"), *arguments, *(("-o", out) if out else ())]

    @property
    def environment(self) -> dict[str, str]:
        """The environment it runs in; the connection string is there, not on the command line."""
        return environment(self._extra)

    def run(
        self,
        *arguments: str,
        out: str | None = "json",
        stdin: str = "",
        within_s: float = 60.0,
    ) -> CtlResult:
        """Run it to its end."""
        command, env = self.command(*arguments, out=out), self.environment
        if self._is_warm and warm.can_start(command, env):
            return CtlResult(arguments, *warm.run(command, env, stdin=stdin, within_s=within_s))
        done = subprocess.run(
            command,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        return CtlResult(arguments, done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "", within_s: float = 60.0) -> Any:
        """Run it, demand status 0, and return what it printed."""
        result = self.run(*arguments, stdin=stdin, within_s=within_s)
        assert result.status == 0, str(result)
        assert result.value is not None or not result.stdout.strip(), f"not JSON\n{result}"
        return result.value

    def fails(self, status: int, *arguments: str, within_s: float = 60.0) -> str:
        """Run it, demand this exit status, and return the error's sentence."""
        result = self.run(*arguments, within_s=within_s)
        assert result.status == status, str(result)
        assert isinstance(result.value, dict), f"no error as JSON\n{result}"
        assert result.value.get("error"), f"no error as JSON\n{result}"
        return str(result.value["error"])

    def configure_filesystem(self, path: object) -> Any:
        """Keep backups in this directory."""
        return self.ok(
            "config",
            "--set",
            "storage.type=filesystem",
            "--set",
            f"storage.filesystem.path={path}",
        )


def ctl_ok(uri: str, *arguments: str, within_s: float = 60.0) -> Any:
    """`Ctl(uri).ok(…)`."""
    return Ctl(uri).ok(*arguments, within_s=within_s)

"""The entry point: one call of the parser, one exit status; the only place that writes errors."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import click

from agent.errors import TidelogError, leaves
from ctl.app import app
from ctl.exit_codes import ExitCode, exit_code
from ctl.invocation import FORMATS, Invocation

GARBAGE_EVERY: Final = 50_000
_CREDENTIALS: Final = re.compile(r"//[^/@\s]+@")


def main() -> None:
    """Console script."""
    # Imports make many objects and no garbage; looking for it takes a tenth of a command's time.
    gc.set_threshold(GARBAGE_EVERY)
    status: int = ExitCode.DONE
    # A broken pipe is a reader who has had enough (`ctl list | head`).
    with contextlib.suppress(BrokenPipeError):
        status = run(sys.argv[1:])
        sys.stdout.flush()
        sys.stderr.flush()
    # The interpreter would join the driver's monitor threads, which sleep for half a second: more
    # than all the rest of a command takes. Everything is closed and written by now.
    os._exit(status)


def run(arguments: Sequence[str], invocation: Invocation | None = None) -> int:
    """Carry out one command line and answer its exit status."""
    invocation = invocation if invocation is not None else Invocation()
    try:
        status = app.main(
            args=list(arguments),
            prog_name="ctl",
            complete_var="_CTL_COMPLETE",
            standalone_mode=False,
            obj=invocation,
        )
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        return _report_help(error, _format_of(arguments))
    except click.UsageError as error:
        return _report(_Fault.of_usage(error), _format_of(arguments), ExitCode.USAGE)
    except click.ClickException as error:
        return _report(_Fault(error.format_message()), _format_of(arguments), ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        if invocation.is_endless:
            return ExitCode.INTERRUPTED
        return _report(_Fault.of_interrupt(invocation), invocation.out, ExitCode.INTERRUPTED)
    except TidelogError as error:
        return _report(_Fault(str(error), error.hint), invocation.out, exit_code(error))
    except BrokenPipeError:
        raise
    except BaseExceptionGroup as group:
        return _report_unexpected(group, invocation)
    except Exception as error:  # noqa: BLE001  # the edge: whatever it is, one sentence and a status
        return _report_unexpected(error, invocation)
    return status if isinstance(status, int) else ExitCode.DONE


class _Fault:
    """One sentence and what can be done."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        # Drivers quote connection strings in what they say; the credentials stay here.
        one_line = " ".join(sentence.split())
        self.sentence = _CREDENTIALS.sub("//***@", one_line.removesuffix("."))
        self.hint = hint

    @classmethod
    def of_usage(cls, error: click.UsageError) -> _Fault:
        message = error.format_message()
        path = error.ctx.command_path if error.ctx is not None else "ctl"
        if not message[:2].isupper():  # "NAME and --time …" begins with a name
            message = message[:1].lower() + message[1:]
        return cls(message, f"'{path} --help' shows how it is used")

    @classmethod
    def of_interrupt(cls, invocation: Invocation) -> _Fault:
        if invocation.followed is None:
            return cls("interrupted")
        return cls(
            f"interrupted; the {invocation.followed} goes on",
            "'ctl status' shows how far it is",
        )


def _format_of(arguments: Sequence[str]) -> str:
    """The format asked for, where the parser gave up, perhaps before it came to it."""
    for index, argument in enumerate(arguments):
        value = ""
        if argument in ("-o", "--out"):
            value = "".join(arguments[index + 1 : index + 2])
        elif argument.startswith(("-o", "--out=")):
            value = argument.removeprefix("--out=").removeprefix("-o").removeprefix("=")
        if value in FORMATS:
            return value
    return "text"


def _report(fault: _Fault, out: str, status: int) -> int:
    click.echo(f"Error: {fault.sentence}", err=True)
    if fault.hint:
        click.echo(f"Hint: {fault.hint}", err=True)
    if out != "text":
        answer = {"error": fault.sentence, "hint": fault.hint}
        indent = 2 if out == "json-pretty" else None
        click.echo(json.dumps(answer, indent=indent, ensure_ascii=False))
    return status


def _report_help(error: click.exceptions.NoArgsIsHelpError, out: str) -> int:
    """A group without a command: what there is."""
    if out == "text":
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    hint = f"'{error.ctx.command_path} --help' shows which there are"
    fault = _Fault("no command is given", hint)
    return _report(fault, out, ExitCode.USAGE)


def _report_unexpected(error: BaseException, invocation: Invocation) -> int:
    known = [leaf for leaf in leaves(error) if isinstance(leaf, TidelogError)]
    if known:
        return _report(_Fault(str(known[0]), known[0].hint), invocation.out, exit_code(known[0]))
    if os.environ.get("TIDELOG_DEBUG"):
        raise error
    fault = _Fault(
        f"unexpected {type(error).__name__}: {error}",
        "this is a bug of Tidelog; TIDELOG_DEBUG=1 shows where",
    )
    return _report(fault, invocation.out, ExitCode.FAILED)


if __name__ == "__main__":
    main()

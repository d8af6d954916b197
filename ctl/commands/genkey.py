"""`ctl genkey`: a key that nobody can guess; needs no cluster."""

from __future__ import annotations

import secrets

import click

from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options

KEY_BYTES = 32


@click.command("genkey")
@global_options
@pass_invocation
def command(invocation: Invocation) -> None:
    """Print a new random key of 256 bits, as 64 hexadecimal characters.

    It serves as a key file and as a passphrase. Keep a copy where no fire reaches both: what was
    encrypted with a lost key is lost.
    """
    key = secrets.token_hex(KEY_BYTES)
    invocation.output.show(Result({"key": key}, key))

"""Sessions of the vendor's library that share what it reads from disk: its descriptions of the
services are megabytes of JSON, and parsing them takes longer than a small upload."""

from __future__ import annotations

from functools import cache
from typing import Any

from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader


@cache
def _loader() -> Loader:
    return create_loader()


def new_session(profile: str | None = None, signer: Any = None) -> AioSession:
    """A session; `signer` is asked for keys before each request."""
    session = AioSession(profile=profile)
    session.register_component("data_loader", _loader())
    if signer is not None:
        session._credentials = signer  # what set_credentials does, for keys that change
    return session

"""Credentials that the surroundings of a process answer for: an instance's role, a container's URI.

An instance of ECS answers at a link-local address, to who first fetched a token with PUT (the
hardened mode; the plain one can be switched off for an instance).
"""

from __future__ import annotations

from typing import Final

from agent.errors import PermissionDenied, StorageUnavailable
from agent.storage.aliyun.rpc import Keys, fetch_json, fetch_text
from agent.storage.aliyun.sts import session_in
from agent.storage.refreshing import Fresh

_TOKEN_TTL_S: Final = 300
_ROLES: Final = "/latest/meta-data/ram/security-credentials/"


async def instance_role(role: str | None, base_url: str) -> Fresh[Keys]:
    """A session of the RAM role that is attached to this instance. Raises `PermissionDenied`
    where there is none."""
    what = "cannot get the RAM role of this instance"
    try:
        token = await fetch_text(
            "PUT",
            f"{base_url}/latest/api/token",
            {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)},
            what,
        )
        headers = {"X-aliyun-ecs-metadata-token": token}
        name = role or (await fetch_text("GET", base_url + _ROLES, headers, what)).strip()
        return session_in(await fetch_json(base_url + _ROLES + name, headers, what), what)
    except StorageUnavailable as error:
        raise PermissionDenied(
            f"no credentials for Alibaba Cloud: neither in the settings nor around this agent "
            f"({error})",
            hint="set credentials, ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET,"
            " or attach a RAM role to the instance",
        ) from error


async def container_uri(uri: str) -> Fresh[Keys]:
    """What the URI of ALIBABA_CLOUD_CREDENTIALS_URI answers."""
    what = "cannot get credentials from ALIBABA_CLOUD_CREDENTIALS_URI"
    return session_in(await fetch_json(uri, {}, what), what)

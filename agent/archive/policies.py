"""The encryption policy of a repository: numbered objects, each written once, each naming the one
before it. The marker cannot say it, since it is written once, too, before anybody knows; so
policies lie beside it, and whoever writes to the repository reads them (docs/decisions/0012).
"""

from __future__ import annotations

from pydantic import ValidationError

from agent.archive.layout import POLICIES, policy_key
from agent.errors import IntegrityError, ObjectExists
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.wire.encryption import Policy, follows


async def read_policies(storage: Storage, known: list[Policy] | None = None) -> list[Policy]:
    """All of them, in order; none where the repository is not encrypted. `known` are those that
    were read before and need not be read again. Raises `IntegrityError` where one is missing,
    changed, or takes back what an earlier one promised."""
    keys = [item.key async for item in storage.list(POLICIES)]
    found = list(known or ())
    if len(keys) < len(found):
        raise IntegrityError(f"encryption policies are missing from {storage.address}")
    for number, key in enumerate(keys, 1):
        if key != policy_key(number):
            raise IntegrityError(f"{policy_key(number)} is missing from {storage.address}")
        if number > len(found):
            found.append(await _read(storage, key, found[-1] if found else None))
    return found


async def _read(storage: Storage, key: str, before: Policy | None) -> Policy:
    data = await get_bytes(storage, key)
    try:
        policy = Policy.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read") from error
    wrong = follows(before, policy)
    if wrong is None and policy.text() != data:
        wrong = "it is not as it was written"
    if wrong is not None:
        raise IntegrityError(f"{key} on {storage.address} does not hold: {wrong}")
    return policy


async def write_policy(storage: Storage, policy: Policy) -> None:
    """Store the next policy. That it is there already, the same, is success. Raises
    `ObjectExists` when another one was written meanwhile."""
    key = policy_key(policy.number)
    try:
        await put_bytes(storage, key, policy.text())
    except ObjectExists:
        if await get_bytes(storage, key) != policy.text():
            raise

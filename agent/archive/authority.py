"""What proves that a policy was written by somebody who has a key of the repository.

Whoever can write to the storage could otherwise add a policy with a key of his own, and be handed
every data key wrapped under it by the next rotation. So the first policy brings a random key along,
the *authority*, wrapped under the same KEKs as data keys are, and every policy carries a MAC under
it. Only the whole chain can be exchanged then, with another authority; the control database
remembers which it was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from agent.errors import IntegrityError
from agent.keys.base import KeyProvider
from agent.wire.encryption import DataKeyRecord, Kek, Policy, Wrap, canonical, wrap_context

_PURPOSE: Final = b"tidelog policy v2\0"


async def new_authority(
    provider: KeyProvider, kek: Kek, repository_id: str, now: datetime
) -> tuple[bytes, DataKeyRecord]:
    """A new one, in clear and wrapped."""
    key_id = f"authority-{secrets.token_hex(4)}"
    made, ciphertext = await provider.generate(wrap_context(repository_id, key_id))
    record = DataKeyRecord(
        key_id=key_id,
        repository_id=repository_id,
        created_at=now,
        wraps=(wrap_of(kek, ciphertext),),
    )
    return made, record


def wrap_of(kek: Kek, ciphertext: bytes) -> Wrap:
    """A wrap as it is stored."""
    return Wrap(kek=kek, ciphertext=base64.b64encode(ciphertext).decode())


def signed(policy: Policy, key: bytes) -> Policy:
    """The policy with its MAC."""
    return policy.model_copy(update={"mac": _mac(policy, key)})


def prove(policies: Sequence[Policy], key: bytes, address: str) -> None:
    """Every one of them was signed with this key. Raises `IntegrityError` naming one."""
    for policy in policies:
        if not hmac.compare_digest(_mac(policy, key).encode(), policy.mac.encode()):
            raise IntegrityError(
                f"the encryption policy {policy.number} at {address} was written by somebody who "
                "has no key of the repository",
                hint="nothing is written there, and nothing read, until it is removed; "
                "docs/runbook.md says what else to look at",
            )


def _mac(policy: Policy, key: bytes) -> str:
    document = policy.model_copy(update={"mac": ""}).to_json()
    return hmac.new(key, _PURPOSE + canonical(document), hashlib.sha256).hexdigest()

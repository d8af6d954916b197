"""`ctl encryption`: from when on, and under which keys, a repository is encrypted.

Enabling writes the first policy, a rotation the next one; both are written once and none can be
taken back. A rotation rewrites no data: it adds to every data key a wrap under the new key, after
it has proven that every data key can be unwrapped. All is done by the lead, and can be taken up
again.
"""

from __future__ import annotations

from typing import Any, Final

from agent.archive.authority import new_authority, signed, wrap_of
from agent.archive.census import write_census
from agent.archive.keyring import Keyring
from agent.archive.policies import read_policies, write_policy
from agent.archive.vault import keyring_of
from agent.archive.wraps import check_usable
from agent.errors import ConfigError, Conflict, KeyUnusable, Refused
from agent.faults import fault_point
from agent.keys.registry import open_provider
from agent.operations.authenticity import take_census
from agent.operations.context import LeadContext, PartContext
from agent.operations.keys_kept import kept_keys, probe
from agent.operations.repository import claimed, read_marker
from agent.storage.base import Storage
from agent.wire.encryption import EncryptionSpec, Kek, KeyHealth, Policy, follows, wrap_context
from agent.wire.operations import Kind, Operation

AGENTS_WITHIN_S: Final = 30.0


class EncryptionKind:
    """All by the lead."""

    kind = Kind.ENCRYPTION

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The key can be used, and the change is allowed. Raises `Refused`, `KeyUnusable`."""
        spec = EncryptionSpec.from_document(operation.spec)
        storage = await lead.services.open_storage(lead.settings, spec.profile)
        try:
            marker = await claimed(lead.services, lead.settings, spec.profile, storage)
            keyring = _keyring(storage)
            current = _last(await read_policies(keyring.storage))
            if spec.action == "probe":
                if current is None:
                    raise Refused("the repository is not encrypted")
                return []
            await _check_versions(lead)
            _check_begun(spec, current)
            kek, _ = await _proven(keyring, spec, marker.repository_id, marks=False)
            if current is not None:
                _check_next(spec, current, kek)
                await keyring.policy(fresh=True)
                # What cannot be opened cannot be wrapped anew.
                await keyring.prove(await kept_keys(keyring))
        finally:
            await storage.aclose()
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Write the policy, wrap what is there, hear what the agents say; idempotent."""
        spec = EncryptionSpec.from_document(operation.spec)
        storage = await lead.services.open_storage(lead.settings, spec.profile)
        try:
            marker = await claimed(lead.services, lead.settings, spec.profile, storage)
            keyring = _keyring(storage)
            if spec.action == "probe":
                return _probed(*await probe(keyring))
            policies = await read_policies(keyring.storage)
            current = _last(policies)
            warnings: list[str] = []
            if current is None or current.op_id != operation.id:
                _check_begun(spec, current)
                kek, warnings = await _proven(keyring, spec, marker.repository_id)
                if current is None:
                    policy = await _first_policy(lead, keyring, operation, kek)
                else:
                    policy = await _next_policy(keyring, spec, operation, kek, current)
                lead.lease.check()
                await write_policy(keyring.storage, policy)
                await fault_point("encryption.policy_written")
                current = policy
            await keyring.policy(fresh=True)
            rewrapped = await _wrap_all(lead, keyring, current)
            if spec.action == "enable":
                lead.log.info("encryption.enabled", keks=[kek.label for kek in current.keks])
            else:
                labels = [kek.label for kek in current.keks]
                lead.log.info("encryption.rotated", keks=labels, keys=rewrapped)
                await probe(keyring)  # what 'encryption status' says of each key has changed
            await _wake_writers(lead)
            agents = await _agents(lead, current)
            return {
                "policy": current.to_json(),
                "rewrapped": rewrapped,
                "warnings": [*warnings, *agents],
            }
        finally:
            await storage.aclose()


def _keyring(storage: Storage) -> Keyring:
    keyring = keyring_of(storage)
    if keyring is None:
        raise ConfigError("this storage was opened without keys")
    return keyring


def _last(policies: list[Policy]) -> Policy | None:
    return policies[-1] if policies else None


async def _proven(
    keyring: Keyring, spec: EncryptionSpec, repository_id: str, *, marks: bool = True
) -> tuple[Kek, list[str]]:
    """The KEK of a request, after it has wrapped and unwrapped something; with warnings if it
    could not be marked as in use."""
    provider = open_provider(spec.provider or "", spec.options, keyring.custody.surroundings)
    try:
        kek = await provider.kek()
        await check_usable(provider, kek)
        context = wrap_context(repository_id, "proof")
        made, wrapped = await provider.generate(context)
        again = await provider.wrap(made, context)
        for ciphertext in (wrapped, again):
            if await provider.unwrap(ciphertext, context) != made:
                raise KeyUnusable(f"the {kek.label} does not unwrap what it wrapped")
        warning = await provider.mark(repository_id) if marks else None
        return kek, [warning] if warning else []
    finally:
        await provider.aclose()


def _check_begun(spec: EncryptionSpec, current: Policy | None) -> None:
    """Enabled once, rotated afterwards. Raises `Refused`."""
    if spec.action == "enable" and current is not None:
        raise Refused(
            "the repository is encrypted already, under "
            + ", ".join(known.label for known in current.keks),
            hint="'ctl encryption rotate' brings another key in",
        )
    if spec.action == "rotate" and current is None:
        raise Refused(
            "the repository is not encrypted", hint="'ctl encryption enable' does it first"
        )


async def _first_policy(
    lead: LeadContext, keyring: Keyring, operation: Operation, kek: Kek
) -> Policy:
    """With the authority, and what is in clear until now. Both are there before the policy is."""
    spec = EncryptionSpec.from_document(operation.spec)
    marker = await read_marker(keyring.storage)
    assert marker is not None
    repository_id, now = marker.repository_id, await keyring.custody.now()
    census = await take_census(keyring.storage, repository_id)
    reference = None
    if census.backups or census.slices:
        lead.lease.check()
        reference = await write_census(keyring.storage, census)
    provider = open_provider(kek.provider, kek.options, keyring.custody.surroundings)
    try:
        authority, record = await new_authority(provider, kek, repository_id, now)
    finally:
        await provider.aclose()
    policy = Policy(
        number=1,
        repository_id=repository_id,
        key_change=spec.key_change,
        keks=(kek,),
        created_at=now,
        since=now,
        op_id=operation.id,
        authority=record,
        census=reference,
    )
    return signed(policy, authority)


def _check_next(spec: EncryptionSpec, current: Policy, kek: Kek) -> Policy:
    """The next policy, not signed yet. Raises `Refused` where it is not allowed."""
    if kek.id in {known.id for known in current.keks}:
        raise Refused(f"the {kek.label} is in use already")
    kept = current.keks if spec.keep else ()
    former = [k for k in current.all_keks if k.id not in {kek.id, *(k.id for k in kept)}]
    policy = current.model_copy(
        update={
            "number": current.number + 1,
            "keks": (*kept, kek),
            "retired": tuple(former),
            "previous_sha256": current.sha256,
        }
    )
    wrong = follows(current, policy)
    if wrong is not None:
        raise Refused(f"the key cannot be changed so: {wrong}", hint="see docs/encryption.md")
    return policy


async def _next_policy(
    keyring: Keyring, spec: EncryptionSpec, operation: Operation, kek: Kek, current: Policy
) -> Policy:
    """Signed by the authority, which is wrapped under the new KEK, too."""
    policy = _check_next(spec, current, kek)
    authority, record = await keyring.authority(), current.authority
    if kek.id not in {wrap.kek.id for wrap in record.wraps}:
        ciphertext = await keyring.provider(kek).wrap(authority, record.context)
        wraps = (*record.wraps, wrap_of(kek, ciphertext))
        record = record.model_copy(update={"wraps": wraps})
    made = {
        "authority": record,
        "created_at": await keyring.custody.now(),
        "op_id": operation.id,
    }
    return signed(policy.model_copy(update=made), authority)


async def _wrap_all(lead: LeadContext, keyring: Keyring, policy: Policy) -> int:
    added = 0
    for key_id in await kept_keys(keyring):
        lead.lease.check()
        record = await keyring.record(key_id)
        missing = {kek.id for kek in policy.keks} - {wrap.kek.id for wrap in record.wraps}
        if missing:
            data_key = await keyring.data_key(key_id)
            added += bool(await keyring.add_wraps(record, data_key))
    return added


async def _check_versions(lead: LeadContext) -> None:
    """An agent that does not know encryption would go on writing in clear. Raises `Refused`."""
    feature = f"kind:{Kind.ENCRYPTION}"
    for node in await lead.services.nodes.live():
        if feature not in node.features:
            raise Refused(
                f"the agent of {node.host} has version {node.agent_version}, which cannot encrypt",
                hint="upgrade all agents first",
            )


async def _wake_writers(lead: LeadContext) -> None:
    """Settings that are written anew let every slicer begin anew, and then it encrypts."""
    settings, version = await lead.services.settings.read()
    try:
        await lead.services.settings.replace(settings, version)
    except Conflict:
        return  # somebody else changed them, which does the same


async def _agents(lead: LeadContext, policy: Policy) -> list[str]:
    """What agents have against the keys of a policy, after they had time to look."""
    clock = lead.services.clock
    end = clock.monotonic() + AGENTS_WITHIN_S
    while True:
        live = await lead.services.nodes.live()
        waiting = [node for node in live if policy.sha256 not in node.key_policies]
        if not waiting or clock.monotonic() >= end:
            break
        await clock.sleep(0.5)
    late = [f"{node.host} has not checked the keys yet" for node in waiting]
    return late + [
        f"{node.host} cannot use the keys: {node.key_error}" for node in live if node.key_error
    ]


def _probed(found: list[KeyHealth], problem: str | None) -> dict[str, Any]:
    lost = [health.key_id for health in found if health.error is not None]
    return {"keys": len(found), "unusable": lost, "problem": problem}

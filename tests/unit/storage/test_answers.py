"""What stores say, as errors: locks that are no fault, rights that are named, pauses, secrets."""

from __future__ import annotations

import json
import ssl

import aiohttp
import pytest

from agent.errors import ObjectLocked, PermissionDenied, StorageUnavailable
from agent.storage.answers import first_line, pause_asked_s, unreached, was_reached, with_right
from agent.storage.azure import errors as azure
from agent.storage.gcs import errors as gcs
from agent.storage.memory import MemoryStorage
from agent.storage.probe import probe
from tests.support.faulty_storage import FaultyStorage

pytestmark = pytest.mark.unit


async def test_a_lock_that_keeps_the_probe_is_no_fault_and_a_missing_right_is() -> None:
    storage = FaultyStorage(await MemoryStorage.open())
    storage.fail("delete", ObjectLocked("kept until tomorrow"))
    await probe(storage)
    storage.fail("delete", PermissionDenied("not allowed"))
    with pytest.raises(PermissionDenied, match="not allowed"):
        await probe(storage)


def _google(reason: str) -> bytes:
    error = {"code": 403, "message": "no", "errors": [{"reason": reason}]}
    return json.dumps({"error": error}).encode()


def test_policies_that_keep_an_object_are_told_apart_from_missing_rights() -> None:
    right = "storage.objects.delete"
    locked = gcs.judged(403, _google("retentionPolicyNotMet"), {}, "cannot delete 'a'", right)
    assert isinstance(locked, ObjectLocked)
    assert "retention ends" in locked.hint
    denied = gcs.judged(403, _google("forbidden"), {}, "cannot delete 'a'", right)
    assert type(denied) is PermissionDenied
    assert denied.hint.startswith("allow storage.objects.delete; give the account")
    kept = azure.judged(409, "BlobImmutableDueToPolicy", "cannot delete 'a'", {})
    assert isinstance(kept, ObjectLocked)
    refused = azure.judged(
        403, "AuthorizationPermissionMismatch", "cannot delete 'a'", {}, "…/blobs/delete"
    )
    assert type(refused) is PermissionDenied
    assert refused.hint.startswith("allow …/blobs/delete; give the identity")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 1.0), ("", 1.0), ("3", 3.0), ("0", 0.1), ("900", 60.0), ("tomorrow", 1.0)],
)
def test_a_pause_is_what_was_asked_for_within_reason(header: str | None, seconds: float) -> None:
    assert pause_asked_s(header) == seconds


def test_the_query_of_an_address_is_never_repeated() -> None:
    error = aiohttp.ClientError("no answer from https://a.blob/c/k?sv=1&sig=SECRET.\nmore")
    assert first_line(error) == "no answer from https://a.blob/c/k"
    told = unreached(error, "cannot read 'k'")
    assert isinstance(told, StorageUnavailable)
    assert "SECRET" not in str(told)
    assert with_right(None, "") is None


def untrusted() -> Exception:
    error = ssl.SSLCertVerificationError(1, "unknown")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    "error", [OSError("refused"), TimeoutError(), untrusted()], ids=["refused", "late", "untrusted"]
)
def test_what_never_answered_is_told_apart_from_what_refused(error: Exception) -> None:
    """A report on a storage says nothing of a connection that there never was."""
    told = unreached(error, "cannot write 'a'")
    assert not was_reached(told)
    assert "endpoint" in told.hint
    assert was_reached(PermissionDenied("not allowed"))
    assert was_reached(None)

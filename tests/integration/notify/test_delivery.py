"""One notice to a real receiver: what it gets, what counts as taken, what is never told."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.notify import delivery as module
from agent.notify.delivery import Delivery, NotTaken
from agent.storage.secrets import SecretReader
from agent.wire.notices import Notice
from agent.wire.notify_settings import WebhookSettings
from tests.support.mongod.ports import free_port
from tests.support.receiver import Receiver, receiving

NOTICE = Notice(
    id="c.1.failed", event="failure", at=1, cluster_id="c", replset="rs0", text="rs0: it failed"
)
KEY = b"a key that nobody is told"


def webhook(receiver: Receiver, **changes: object) -> WebhookSettings:
    return WebhookSettings.model_validate({"url": receiver.url, **changes})


async def send(hook: WebhookSettings) -> None:
    async with Delivery(SecretReader().text) as open_delivery:
        await open_delivery.send(hook, NOTICE, 1_800_000_000)


@pytest.mark.parametrize("form", ["plain", "whsec"])
async def test_what_comes_is_signed_with_the_secret_of_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(KEY if form == "plain" else b"whsec_" + base64.b64encode(KEY))
    async with receiving() as receiver:
        await send(webhook(receiver, secret={"file": str(path)}))
        (got,) = receiver.received
        assert got.is_signed_with(KEY)
        assert not got.is_signed_with(b"another key")
        assert (got.id, got.headers["webhook-timestamp"]) == (NOTICE.id, "1800000000")
        assert got.value["type"] == "tidelog.failure"
        assert got.value["data"]["text"] == "rs0: it failed"
        assert KEY not in got.body
        assert KEY.decode() not in str(got.headers)


async def test_a_secret_that_is_changed_signs_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    async with receiving() as receiver:
        for key in (b"first", b"second"):
            path.write_bytes(key)
            await send(webhook(receiver, secret={"file": str(path)}))
        assert [got.is_signed_with(b"second") for got in receiver.received] == [False, True]


async def test_slack_gets_a_sentence_and_no_signature_without_a_secret() -> None:
    async with receiving() as receiver:
        await send(webhook(receiver, format="slack"))
        (got,) = receiver.received
        assert got.value == {"text": "rs0: it failed"}
        assert "webhook-signature" not in got.headers


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410, 500, 503])
async def test_only_2xx_is_taken_and_nothing_is_followed(status: int) -> None:
    async with receiving() as receiver:
        receiver.statuses = [status]
        receiver.answer_headers = {"Location": receiver.url}
        with pytest.raises(NotTaken, match=str(status)):
            await send(webhook(receiver))
        assert len(receiver.received) == 1


async def test_one_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WITHIN_S", 0.2)
    async with receiving() as receiver:
        receiver.delay_s = 5
        with pytest.raises(NotTaken, match=r"no answer within 0\.2 s"):
            await send(webhook(receiver))


async def test_nobody_there_is_said() -> None:
    hook = WebhookSettings(url=f"http://127.0.0.1:{free_port()}/services/T0KEN")
    with pytest.raises(NotTaken, match="did not answer") as raised:
        await send(hook)
    assert "T0KEN" not in str(raised.value), "the path of a webhook is its password, often"


async def test_a_secret_that_is_not_there_is_named_and_nothing_is_sent(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with pytest.raises(ConfigError, match="nowhere"):
            await send(webhook(receiver, secret={"file": str(tmp_path / "nowhere")}))
        assert receiver.received == []

"""Who may read what an agent serves, and what becomes of those who ask for more."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.clock import SystemClock
from agent.config import Config, load
from agent.errors import ConfigError
from agent.web.model import View
from agent.web.server import MAX_CONNECTIONS, Address, WebServer
from tests.support.browser import FixedModel, served
from tests.support.mongod.certificates import Certificates
from tests.support.overviews import good, view_of

PATHS = ("/", "/metrics", "/api/overview", "/healthz", "/readyz", "/assets/page.css")


def model() -> FixedModel:
    return FixedModel(view_of(good()))


async def status(url: str, **options: Any) -> int:
    async with aiohttp.ClientSession() as client, client.get(url, **options) as answer:
        return answer.status


async def test_on_loopback_everything_is_answered() -> None:
    async with served(model()) as url:
        assert [await status(url + path) for path in PATHS] == [200] * len(PATHS)


async def test_a_name_that_is_not_loopback_is_refused() -> None:
    async with served(model()) as url:
        port = url.rpartition(":")[2]
        for host, wanted in ((f"evil.example.com:{port}", 403), (f"localhost:{port}", 200)):
            assert await status(url, headers={"Host": host}) == wanted


async def test_with_a_token_only_who_shows_it_may_read() -> None:
    basic = base64.b64encode(b"anybody:word of mine").decode()
    wrong = base64.b64encode(b"word of mine:wrong").decode()
    async with served(model(), lambda: "word of mine") as url:
        for header, wanted in (
            (None, 401),
            ("Bearer wrong", 401),
            ("Bearer word of mine", 200),
            (f"Basic {basic}", 200),
            (f"Basic {wrong}", 401),
            ("Basic %%%", 401),
            ("Negotiate word of mine", 401),
        ):
            headers = {"Authorization": header} if header is not None else {}
            for path in ("/", "/metrics", "/api/overview", "/assets/page.css"):
                assert await status(url + path, headers=headers) == wanted, (header, path)


async def test_without_the_token_health_is_one_word() -> None:
    shown = view_of(good())
    shown.local.heartbeat.condition.storage_error = "the bucket secret-name is not there"
    async with (
        served(FixedModel(shown), lambda: "word") as url,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"ready": False})
        headers = {"Authorization": "Bearer word"}
        async with client.get(f"{url}/healthz?ready", headers=headers) as answer:
            assert "secret-name" in (await answer.json())["reasons"][0]


async def test_a_token_that_cannot_be_read_lets_nobody_in() -> None:
    def unreadable() -> str:
        raise ConfigError("a secret cannot be read")

    async with served(model(), unreadable) as url:
        assert await status(f"{url}/metrics") == 503


async def test_every_answer_forbids_what_a_page_does_not_need() -> None:
    async with served(model()) as url, aiohttp.ClientSession() as client:
        for path in (*PATHS, "/nothing"):
            async with client.get(url + path) as answer:
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with (
        served(model()) as url,
        aiohttp.ClientSession() as client,
        client.request(method, f"{url}/api/overview") as answer,
    ):
        assert answer.status == 405


async def test_what_asks_for_files_gets_none() -> None:
    async with served(model()) as url:
        for path in ("/assets/page.html", "/assets/..%2fpage.py", "/assets/%2e%2e/server.py"):
            assert await status(url + path) == 404


async def test_more_connections_than_enough_are_hung_up_on() -> None:
    async with served(model()) as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        writers = [
            (await asyncio.open_connection(host, int(port)))[1] for _ in range(MAX_CONNECTIONS)
        ]
        await asyncio.sleep(0.1)
        reader, one_more = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        for writer in (*writers, one_more):
            writer.close()
        await asyncio.sleep(0.1)
        assert await status(f"{url}/healthz") == 200


async def test_a_view_that_cannot_be_made_ends_one_answer_only() -> None:
    class Broken(FixedModel):
        async def view(self) -> View:
            raise RuntimeError("broken")

    async with served(Broken(view_of(None))) as url:
        assert await status(f"{url}/metrics") == 500
        assert await status(f"{url}/healthz") == 200


async def test_a_port_that_is_taken_is_said_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with served(model()) as url:
        address = Address("127.0.0.1", int(url.rpartition(":")[2]))
        server = WebServer(address, model(), lambda: None, SystemClock())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.run(), 0.5)
    assert "http.not_listening" in capsys.readouterr().out


async def test_it_can_be_https(tmp_path: Path) -> None:
    made = Certificates.create(tmp_path)
    context = ssl.create_default_context(cafile=str(made.ca))
    async with served(model(), certificate=made.server, key=made.server) as url:
        assert await status(f"{url}/healthz", ssl=context) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "db1.example.com", "192.0.2.7"])
def test_without_a_token_only_loopback_is_listened_on(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="token"):
        load(None, {"TIDELOG_LISTEN": f"{host}:9360"})
    config = load(None, {"TIDELOG_LISTEN": f"{host}:9360", "TIDELOG_WEB__TOKEN": "word"})
    assert config.listen_address()[1] == 9360
    assert isinstance(config, Config)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.0.0.9"])
def test_loopback_needs_no_token(host: str) -> None:
    assert load(None, {"TIDELOG_LISTEN": f"{host}:9360"}).listen == f"{host}:9360"

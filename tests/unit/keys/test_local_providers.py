"""Passphrases and key files: what they open, and what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError, KeyUnusable
from agent.keys.base import KeyProvider
from agent.keys.registry import open_provider
from agent.storage.surroundings import Surroundings

CONTEXT = {"tidelog-repository": "r1", "tidelog-key": "k1"}
OTHER = {"tidelog-repository": "r1", "tidelog-key": "k2"}
CHEAP = {"n": 1 << 14, "p": 1}


def passphrase(text: str, **options: object) -> KeyProvider:
    around = Surroundings(environment={"PASS": text})
    return open_provider("passphrase", {"passphrase": {"env": "PASS"}, **CHEAP, **options}, around)


def keyfile(path: Path) -> KeyProvider:
    return open_provider("keyfile", {"keyfile": {"file": str(path)}}, Surroundings())


async def test_a_passphrase_opens_what_it_wrapped_and_nothing_else_does() -> None:
    first = passphrase("correct horse battery staple")
    kek = await first.kek()
    data_key, wrapped = await first.generate(CONTEXT)
    again = passphrase("correct horse battery staple", salt=kek.options["salt"])
    assert await again.unwrap(wrapped, CONTEXT) == data_key
    wrong = passphrase("correct horse battery stapler", salt=kek.options["salt"])
    with pytest.raises(KeyUnusable, match="does not open the data key k1"):
        await wrong.unwrap(wrapped, CONTEXT)
    assert (await wrong.kek()).fingerprint != (await again.kek()).fingerprint == kek.fingerprint


async def test_a_wrapped_key_cannot_be_passed_off_as_another() -> None:
    provider = passphrase("correct horse battery staple")
    _, wrapped = await provider.generate(CONTEXT)
    with pytest.raises(KeyUnusable):
        await provider.unwrap(wrapped, OTHER)


async def test_what_a_policy_keeps_of_a_passphrase_does_not_hold_it() -> None:
    kek = await passphrase("correct horse battery staple").kek()
    assert "horse" not in kek.model_dump_json()
    assert kek.options["passphrase"] == {"env": "PASS"}


async def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 12"):
        await passphrase("too short").kek()


def test_a_passphrase_in_clear_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        open_provider("passphrase", {"passphrase": "hunter2hunter2"}, Surroundings())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "cost", [{"n": 1 << 13}, {"n": 1 << 20}, {"r": 4}, {"p": 0}, {"n": 1 << 18, "r": 16}]
)
def test_a_policy_can_make_a_passphrase_neither_cheap_to_guess_nor_too_dear_to_use(
    cost: dict[str, int],
) -> None:
    with pytest.raises(ConfigError, match="passphrase: "):
        passphrase("correct horse battery staple", **cost)


async def test_a_passphrase_may_be_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("correct horse battery staple\n")
    around = Surroundings(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    options = {"passphrase": {"credential": "backup"}, **CHEAP}
    found = await open_provider("passphrase", options, around).kek()
    same = passphrase("correct horse battery staple", salt=found.options["salt"])
    assert (await same.kek()).fingerprint == found.fingerprint


async def test_a_key_file_opens_what_it_wrapped(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32 + "\n")
    data_key, wrapped = await keyfile(path).generate(CONTEXT)
    assert await keyfile(path).unwrap(wrapped, CONTEXT) == data_key
    path.write_text("cd" * 32 + "\n")
    with pytest.raises(KeyUnusable):
        await keyfile(path).unwrap(wrapped, CONTEXT)


async def test_a_key_file_that_holds_no_key_is_refused_without_being_repeated(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_text("not a key")
    with pytest.raises(ConfigError, match="64 hexadecimal") as caught:
        await keyfile(path).kek()
    assert "not a key" not in str(caught.value).replace("is not", "")


def test_an_unknown_provider_names_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        open_provider("vault", {}, Surroundings())
    assert "passphrase" in caught.value.hint

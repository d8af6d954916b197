"""Whose credentials win: every combination of what may be there, against the rule in one line."""

from __future__ import annotations

from itertools import product

import pytest

from agent.storage.precedence import ORDER, Choice, Link, choose

ROLE = "arn:aws:iam::1:role/ambient"
OWN = "arn:aws:iam::1:role/own"
E, W, V, P, M = (
    *(Link.EXPLICIT, Link.WEB_IDENTITY, Link.ENVIRONMENT),
    *(Link.PROFILE, Link.METADATA),
)


@pytest.mark.parametrize(
    ("present", "own", "ambient", "link", "base"),
    [
        ({E, W, V, P, M}, None, ROLE, Link.EXPLICIT, E),  # B14, B24
        ({E, M}, None, ROLE, Link.EXPLICIT, E),
        ({W, V, P, M}, None, ROLE, Link.WEB_IDENTITY, W),  # B24
        ({V, P, M}, None, ROLE, Link.ASSUMED_ROLE, V),  # B13
        ({M}, None, ROLE, Link.ASSUMED_ROLE, M),  # B3
        (set(), None, ROLE, Link.ASSUMED_ROLE, M),
        ({V, P, M}, None, None, Link.ENVIRONMENT, V),
        ({P, M}, None, None, Link.PROFILE, P),
        (set(), None, None, Link.METADATA, M),
        ({E, M}, OWN, ROLE, Link.ASSUMED_ROLE, E),  # A11, A17
        ({W}, OWN, ROLE, Link.ASSUMED_ROLE, W),  # B26: web identity, then another account's role
        ({W}, ROLE, ROLE, Link.WEB_IDENTITY, W),
        ({M}, OWN, None, Link.ASSUMED_ROLE, M),
    ],
)
def test_who_wins(
    present: set[Link], own: str | None, ambient: str | None, link: Link, base: Link
) -> None:
    choice = choose(present, settings_role=own, ambient_role=ambient)
    assert (choice.link, choice.base) == (link, base)


def test_every_combination_follows_the_order() -> None:
    """B13, B14, B24: all 2^6 combinations, without a role in the settings."""
    links = [link for link in ORDER if link is not Link.ASSUMED_ROLE]
    for flags in product((False, True), repeat=len(links)):
        present = {link for link, is_there in zip(links, flags, strict=True) if is_there}
        for ambient in (None, ROLE):
            effective = present | ({Link.ASSUMED_ROLE} if ambient else set())
            wanted = next((link for link in ORDER if link in effective), Link.METADATA)
            assert choose(present, ambient_role=ambient).link is wanted, (present, ambient)


def test_an_ambient_role_is_not_assumed_with_an_explicit_key() -> None:
    assert choose({E}, ambient_role=ROLE) == Choice(E, None)

"""Who has to have built an index before it is ready, as people write it."""

from __future__ import annotations

import re
from typing import Final

NAMED: Final = ("majority", "votingMembers")
MOST_MEMBERS: Final = 50


def parse_quorum(value: object) -> str | int:
    """`majority`, `votingMembers` or a number of members. Raises `ValueError`."""
    text = str(value)
    if text in NAMED:
        return text
    if re.fullmatch(r"\d{1,2}", text) and 1 <= int(text) <= MOST_MEMBERS:
        return int(text)
    raise ValueError(f"{text!r} is no commit quorum; write majority, votingMembers or 1 to 50")

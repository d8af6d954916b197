"""Whether this bucket refuses to replace what is there: one that has versioning does not.

OSS ignores `x-oss-forbid-overwrite` where versioning is on or suspended: a second object of the
same name becomes a new version. Such a bucket answers each write with `x-oss-version-id`. Until the
first answer, and ever after in such a bucket, a key is looked at before it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VERSION_ID: Final = "x-oss-version-id"


@dataclass
class Manners:
    """Found out by the first write, then known."""

    heeds_condition: bool | None = None
    """Whether `x-oss-forbid-overwrite` is heeded; None where no answer has told yet."""

    def learn(self, headers: Mapping[str, str]) -> None:
        """From the answer to a write."""
        self.heeds_condition = VERSION_ID not in headers

"""Nothing secret leaves in a report, wherever it stood."""

from __future__ import annotations

import json

import pytest

from ctl.scrubbing import scrubbed

PLANTED = "hunter2-Planted/Secret"


@pytest.mark.parametrize(
    "value",
    [
        {"password": PLANTED},
        {"storage": {"s3": {"credentials": {"secret-access-key": PLANTED}}}},
        {"fields": {"sessionToken": [PLANTED]}},
        {"error": f"cannot connect to mongodb://tidelog:{PLANTED.replace('/', '%2F')}@db1:27017/"},
        [f"GET https://b.example/o?X-Amz-Signature={PLANTED}&x=1 failed"],
        f"https://a.blob.example/c?sv=1&sig={PLANTED}",
        f"Authorization: Bearer {PLANTED}",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        {"note": f"the operator typed {PLANTED} here"},
        {PLANTED: 1},
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(value: object) -> None:
    known = [PLANTED] if "typed" in str(value) or value == {PLANTED: 1} else []
    told = json.dumps(scrubbed({"x": value}, known))
    assert PLANTED not in told
    assert PLANTED.replace("/", "%2F") not in told
    assert "***" in told


def test_what_is_no_secret_stays_as_it_is() -> None:
    value = {
        "ns": "shop.orders",
        "keys": ["a", 1, None, True, 2.5],
        "address": "https://s3.example/bucket/prefix",
        "host": "mongodb://db1:27017/",
    }
    assert scrubbed(value) == value

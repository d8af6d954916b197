"""Connection strings: what is refused, what is kept, and that no message ever holds a password."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from agent.errors import (
    ConfigError,
    Conflict,
    Permanent,
    PermissionDenied,
    StoreUnavailable,
    TidelogError,
)
from agent.store.connection import _unfit, open_control, parse_uri
from agent.store.translate import translated


def test_what_is_ours_to_choose_is_left_out_and_the_rest_kept() -> None:
    uri = parse_uri(
        "mongodb://u:p%40ss@a:1,b:2/admin?authSource=admin&readPreference=secondary&tls=true"
        "&tlsCAFile=%2Fca.crt&replicaSet=rs0&directConnection=true&w=0&retryWrites=false"
    )
    assert uri.hosts == ("a:1", "b:2")
    assert uri.text(("c:3",)) == (
        "mongodb://u:p%40ss@c:3/admin?authSource=admin&tls=true&tlsCAFile=%2Fca.crt"
    )
    assert uri.text(login=False) == "mongodb://a:1,b:2/admin?tls=true&tlsCAFile=%2Fca.crt"


def test_x509_is_a_login_too() -> None:
    uri = parse_uri("mongodb://a:1/?authMechanism=MONGODB-X509&tls=true")
    assert uri.text(login=False) == "mongodb://a:1/?tls=true"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mongodb+srv://u:hunter2@cluster.example.com/", r"mongodb\+srv"),
        ("localhost:27017", "does not begin with"),
        ("https://u:hunter2@host/", "does not begin with"),
        ("", "does not begin with"),
        ("mongodb:///db", "no host"),
        ("mongodb://u:hunter2@/", "no host"),
        ("mongodb://u:hunter2@x@host/", "special character"),
        ("mongodb://u:hunter2/x@host/", "special character"),
        ("mongodb://u:hunter2?x@host/", "special character"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_sentence(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        await open_control(uri, app_name="test")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://u:hunter2@localhost:notaport/",
        "mongodb://u:hunter2@localhost:27017/?tls=true&tlsCAFile=/no/such/file",
        "mongodb://u:hunter2%@localhost:27017/",
        "mongodb://u:hunter2@localhost:27017/?authMechanism=nonsense",
        "mongodb://u:hunter2@localhost:1/",
        "mongodb://u:hunter2@[::1/",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_no_failure_to_connect_tells_the_password(uri: str) -> None:
    with pytest.raises(TidelogError) as caught:
        await open_control(uri, app_name="test", timeout_s=1.0)
    assert isinstance(caught.value, ConfigError | StoreUnavailable)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@example("", "?/")
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_parsed_or_refused_without_repeating_it(user: str, password: str) -> None:
    secret = f"hunter2{password}"
    try:
        uri = parse_uri(f"mongodb://{user}:{secret}@host:1/?x=y")
        said = str(uri) + repr(uri)
    except ConfigError as error:
        said = str(error)
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServerSelectionTimeoutError("no primary"), StoreUnavailable),
        (AutoReconnect("connection closed"), StoreUnavailable),
        (WTimeoutError("waiting for replication timed out", 64), StoreUnavailable),
        (OperationFailure("not primary", 10107), StoreUnavailable),
        (BulkWriteError({"writeErrors": [{"code": 11602, "errmsg": "stepped"}]}), StoreUnavailable),
        (BulkWriteError({"writeErrors": [{"code": 2, "errmsg": "bad value"}]}), Permanent),
        (BulkWriteError({"writeConcernErrors": [{"code": 64}]}), StoreUnavailable),
        (OperationFailure("not authorized on admin", 13), PermissionDenied),
        (OperationFailure("Authentication failed.", 18), ConfigError),
        (OperationFailure("Could not find user", 11), ConfigError),
        (OperationFailure("BSON field is unknown", 40415), Permanent),
        (InvalidURI("mongodb://u:hunter2"), ConfigError),
        (ConfigurationError("u:hunter2"), ConfigError),
        (Conflict("ours"), Conflict),
        (DuplicateKeyError("E11000", 11000), DuplicateKeyError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:20],
)
def test_driver_errors_become_ours(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, translated("reading the settings"):
        raise error
    assert type(caught.value) is expected
    if isinstance(caught.value, TidelogError) and caught.value is not error:
        assert str(caught.value).startswith("reading the settings")
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    if isinstance(caught.value, StoreUnavailable):
        assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("hello", "message"),
    [
        ({"msg": "isdbgrid"}, "is a mongos"),
        ({"isWritablePrimary": True}, "is a standalone"),
        ({"setName": "rs0", "arbiterOnly": True}, "is an arbiter"),
    ],
)
def test_members_that_cannot_do_are_named_with_what_to_give_instead(
    hello: dict[str, object], message: str
) -> None:
    found = _unfit("db1:27017", hello)
    assert isinstance(found, ConfigError)
    assert found.message.startswith(f"db1:27017 {message}")
    assert found.hint


def test_no_primary_is_said_in_words() -> None:
    said = 'No replica set members match selector "Primary()", Timeout: 5.0s, Topology …'
    with pytest.raises(StoreUnavailable) as found, translated("reading"):
        raise ServerSelectionTimeoutError(said)
    assert str(found.value) == "reading: no member that answers is primary"


def test_who_forgot_to_log_in_is_told_so() -> None:
    said = "command find requires authentication"
    with pytest.raises(ConfigError) as found, translated("reading the settings"):
        raise OperationFailure(said, code=13)
    assert str(found.value) == "reading the settings: the server wants a login"

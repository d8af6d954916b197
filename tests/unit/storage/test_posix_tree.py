"""Key order against the plain definition, on random trees."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.storage.posix_root import Root
from agent.storage.posix_tree import remove, walk

pytestmark = pytest.mark.unit

part = st.text("ab.-0/é", min_size=1, max_size=3).filter(
    lambda text: "/" not in text and text not in (".", "..")
)
key = st.lists(part, min_size=1, max_size=4).map("/".join)


def make(root: Path, keys: list[str]) -> list[str]:
    """Create what can exist together, in the order given."""
    made = []
    for each in keys:
        path = root / each
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        except OSError:
            continue
        made.append(each)
    return made


@settings(deadline=None)
@given(
    keys=st.lists(key, max_size=25),
    prefix=st.one_of(st.just(""), part, key, key.map(lambda text: f"{text}/")),
    after=st.one_of(st.none(), st.text("ab.-0/é", max_size=6), key),
)
def test_walk_is_the_sorted_and_filtered_keys(
    keys: list[str], prefix: str, after: str | None
) -> None:
    with TemporaryDirectory() as directory:
        made = make(Path(directory), keys)
        found = [each.key for each in walk(Root.open(Path(directory)), prefix, after)]
    expected = sorted(made, key=str.encode)
    assert found == [
        each
        for each in expected
        if each.startswith(prefix) and (after is None or each.encode() > after.encode())
    ]


@settings(deadline=None, max_examples=50)
@given(keys=st.lists(key, max_size=25), gone=st.lists(key, max_size=10))
def test_remove_leaves_the_others_and_no_empty_directory(keys: list[str], gone: list[str]) -> None:
    with TemporaryDirectory() as directory:
        made = make(Path(directory), keys)
        root = Root.open(Path(directory))
        named = [*gone, *made[::2]]
        remove(root, named, threading.Event())
        assert [each.key for each in walk(root, "", None)] == sorted(set(made) - set(named))
        used = {str(parent) for each in made for parent in Path(each).parents}
        emptied = [
            path
            for path in Path(directory).rglob("*")
            if path.is_dir()
            and not any(path.iterdir())
            and str(path.relative_to(directory)) in used
        ]
        assert emptied == []


def test_a_stopped_removal_removes_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    stop = threading.Event()
    stop.set()
    remove(Root.open(tmp_path), ["key"], stop)
    assert (tmp_path / "key").exists()

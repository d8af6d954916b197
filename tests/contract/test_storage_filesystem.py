# Tests look at local files and processes between the steps of what they test; nothing else runs.
# ruff: noqa: ASYNC220, ASYNC221, ASYNC230, ASYNC240
"""What only a file system does: full, read-only, unmounted, killed in the middle, slow, odd."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agent.errors import (
    ConfigError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    TidelogError,
)
from agent.storage import posix_root, posix_writer
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.filesystem import STALE_TEMPORARY_S, FilesystemStorage
from agent.storage.posix_root import Root
from agent.storage.threads import Threads

pytestmark = pytest.mark.contract

MIB = 1024 * 1024


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def listed(storage: Storage) -> list[str]:
    return [found.key async for found in storage.list("")]


async def zeros(mebibytes: int) -> AsyncIterator[bytes]:
    for _ in range(mebibytes):
        yield bytes(MIB)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[FilesystemStorage]:
    storage = await FilesystemStorage.open(root)
    yield storage
    await storage.aclose()


def mount(path: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=2m", *options)), "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


def unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A file system of 2 MiB and 32 files.

    Outside `tmp_path`: a mount that a killed run leaves must not be in the way of pytest's own
    clearing up in the next.
    """
    with TemporaryDirectory(prefix="tidelog-", ignore_cleanup_errors=True) as directory:
        path = Path(directory) / "tiny"
        path.mkdir()
        mount(path, "nr_inodes=32")
        try:
            yield path
        finally:
            if path.is_mount():
                unmount(path)


# Full


async def test_a_full_disk_is_named_and_nothing_is_left(tiny: Path) -> None:
    storage = await FilesystemStorage.open(tiny)
    await put_bytes(storage, "kept", b"body")
    with pytest.raises(StorageFull, match=r"'a/big' in .*/tiny: .*\d+ bytes free") as raised:
        await storage.put("a/big", zeros(4))
    assert "free space" in raised.value.hint
    assert names(tiny) == ["kept"]
    await put_bytes(storage, "a/small", bytes(1000))
    assert await listed(storage) == ["a/small", "kept"]
    await storage.aclose()


async def test_a_disk_without_inodes_is_full(tiny: Path) -> None:
    storage = await FilesystemStorage.open(tiny)
    with pytest.raises(StorageFull, match="'deep/"):
        await put_bytes(storage, "deep/" * 40 + "key", b"")
    assert names(tiny) == []
    await storage.aclose()


async def test_verify_tells_that_the_disk_is_full(tiny: Path) -> None:
    storage = await FilesystemStorage.open(tiny)
    (tiny / "ballast").write_bytes(bytes(2 * MIB))
    with pytest.raises(StorageFull):
        await storage.verify()
    await storage.aclose()


# Read-only, gone


async def test_a_read_only_mount_reads_and_refuses_the_rest(tiny: Path) -> None:
    storage = await FilesystemStorage.open(tiny)
    await put_bytes(storage, "a/key", b"body")
    (tiny / "a/.tmp-old").write_bytes(b"")
    os.utime(tiny / "a/.tmp-old", (1, 1))
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    reader = await FilesystemStorage.open(tiny)  # the sweep at open cannot work: no reason to fail
    assert await get_bytes(reader, "a/key") == b"body"
    assert await listed(reader) == ["a/key"]
    with pytest.raises(PermissionDenied, match="read-only") as raised:
        await put_bytes(reader, "b/key", b"")
    assert "mounted read-only" in raised.value.hint
    with pytest.raises(PermissionDenied):
        await reader.delete(["a/key"])
    with pytest.raises(PermissionDenied):
        await reader.verify()
    await reader.aclose()
    await storage.aclose()


async def test_an_unmounted_repository_is_neither_empty_nor_writable(tiny: Path) -> None:
    storage = await FilesystemStorage.open(tiny)
    await put_bytes(storage, "a/key", b"body")
    unmount(tiny)
    with pytest.raises(StorageUnavailable, match="not mounted any more"):
        await put_bytes(storage, "b", b"")
    with pytest.raises(StorageUnavailable):
        await get_bytes(storage, "a/key")
    with pytest.raises(StorageUnavailable):
        await storage.stat("a/key")
    with pytest.raises(StorageUnavailable):
        await listed(storage)
    with pytest.raises(StorageUnavailable):
        await storage.delete(["a/key"])
    with pytest.raises(StorageUnavailable):
        await storage.verify()
    assert names(tiny) == []
    mount(tiny)
    await storage.verify()
    await storage.aclose()


async def test_a_listing_does_not_end_early_when_the_repository_vanishes(
    root: Path, storage: FilesystemStorage
) -> None:
    for directory in range(3):
        for number in range(1000):
            path = root / f"{directory}/{number:04}"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    entries = storage.list("")
    assert (await anext(entries)).key == "0/0000"
    root.rename(root.with_name("moved"))
    with pytest.raises(StorageUnavailable, match="does not exist"):
        async for _found in entries:
            pass


async def test_a_missing_directory_is_never_created(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="does not exist") as raised:
        await FilesystemStorage.open(tmp_path / "absent")
    assert "mount it or create it" in raised.value.hint
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match="no directory"):
        await FilesystemStorage.open(tmp_path / "file")


async def test_a_directory_that_goes_is_not_made_again(
    root: Path, storage: FilesystemStorage
) -> None:
    root.rmdir()
    with pytest.raises(StorageUnavailable):
        await put_bytes(storage, "a/key", b"")
    assert not root.exists()


@pytest.mark.parametrize("path", ["relative/path", "/"])
async def test_a_directory_must_be_absolute_and_its_own(path: str) -> None:
    with pytest.raises(ConfigError):
        await FilesystemStorage.open(Path(path))


# Durability


async def test_everything_that_leads_to_an_object_is_synced_in_order(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def recording_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root).as_posix()
        events.append(f"fsync {'temporary' if '.tmp-' in name else name}")
        fsync(descriptor)

    def recording_link(source: bytes, target: bytes) -> None:
        events.append(f"link {Path(os.fsdecode(target)).relative_to(root).as_posix()}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    await put_bytes(storage, "a/b/key", b"body")
    assert events == ["fsync temporary", "link a/b/key", "fsync a/b", "fsync a", "fsync ."]
    events.clear()
    await put_bytes(storage, "a/key", b"body")
    await storage.delete(["a/key", "a/b/key", "absent"])
    assert events[-2:] == ["fsync a", "fsync a/b"]


async def test_only_the_owner_may_read(root: Path, storage: FilesystemStorage) -> None:
    mask = os.umask(0)
    try:
        await put_bytes(storage, "a/b/key", b"body")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((root / "a/b/key").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert (root / "a/b/key").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied),
        (errno.EROFS, PermissionDenied),
        (errno.EIO, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.ETIMEDOUT, StorageUnavailable),
        (errno.EMFILE, StorageUnavailable),
        (errno.EFBIG, Permanent),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "unlink"])
async def test_a_failing_system_call_leaves_nothing_and_is_translated(
    root: Path,
    storage: FilesystemStorage,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    kind: type[TidelogError],
) -> None:
    original: Callable[..., object] = getattr(os, call)
    struck = 0

    def failing(*arguments: object) -> object:
        nonlocal struck
        struck += 1
        if struck == 1:
            raise OSError(number, os.strerror(number))
        return original(*arguments)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(kind, match="'a/key'") as raised:
        await put_bytes(storage, "a/key", b"body")
    assert isinstance(raised.value.__cause__, OSError)
    assert names(root) == []


async def test_a_directory_that_cannot_be_synced_takes_the_object_back(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(posix_root, "sync_directory", failing)
    with pytest.raises(StorageUnavailable):
        await put_bytes(storage, "a/key", b"body")
    assert names(root) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
async def test_a_file_system_that_cannot_sync_directories_is_good_enough(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    await put_bytes(storage, "a/key", b"body")
    assert await get_bytes(storage, "a/key") == b"body"


async def test_a_file_system_that_loses_bytes_is_found_out(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(descriptor: int, data: memoryview) -> int:
        return len(data)

    monkeypatch.setattr(os, "write", lying)
    with pytest.raises(IntegrityError, match="4 bytes were written, the file has 0"):
        await put_bytes(storage, "a/key", b"body")
    assert names(root) == []


# Linking


async def test_an_answer_lost_by_nfs_is_recognised(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def repeated(source: bytes, target: bytes) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    await put_bytes(storage, "a/key", b"body")
    assert await get_bytes(storage, "a/key") == b"body"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
async def test_without_hard_links_it_renames_and_replaces_nothing(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    linking(monkeypatch, number)
    await put_bytes(storage, "a/key", b"body")
    assert names(root) == ["a", "a/key"]
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # the race: taken meanwhile
    with pytest.raises(ObjectExists):
        await put_bytes(storage, "a/key", b"other")
    assert names(root) == ["a", "a/key"]
    assert await get_bytes(storage, "a/key") == b"body"


async def test_with_neither_it_says_so(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    linking(monkeypatch, errno.EPERM)

    def unknown(source: bytes, target: bytes) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(posix_writer, "rename_no_replace", unknown)
    with pytest.raises(Permanent, match="neither hard links nor"):
        await put_bytes(storage, "a/key", b"body")
    assert names(root) == []


def linking(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(source: bytes, target: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)


async def test_a_put_of_a_taken_key_reads_nothing_of_its_source(
    storage: FilesystemStorage,
) -> None:
    await put_bytes(storage, "a/key", b"body")

    was_read = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal was_read
        was_read = True
        yield b""

    with pytest.raises(ObjectExists):
        await storage.put("a/key", source())
    assert not was_read


async def test_the_loser_of_a_race_to_the_link_leaves_the_winner_alone(
    root: Path, storage: FilesystemStorage
) -> None:
    async def overtaken() -> AsyncIterator[bytes]:
        yield b"loser"
        await put_bytes(storage, "a/key", b"winner")

    with pytest.raises(ObjectExists):
        await storage.put("a/key", overtaken())
    assert names(root) == ["a", "a/key"]
    assert await get_bytes(storage, "a/key") == b"winner"


# Killed writers


KILLED = """
import asyncio, sys
from pathlib import Path
from agent.storage.filesystem import FilesystemStorage

async def stalling():
    yield bytes(3 << 20)
    yield bytes(3 << 20)
    print("writing", flush=True)
    await asyncio.sleep(3600)

async def main():
    storage = await FilesystemStorage.open(Path(sys.argv[1]))
    await storage.put("a/key", stalling())

asyncio.run(main())
"""


async def test_what_a_killed_writer_leaves_is_never_listed_and_swept(
    root: Path, storage: FilesystemStorage
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer, writer.stdout:
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    (left,) = root.glob("a/.tmp-*")
    assert left.stat().st_size == 6 * MIB
    assert await listed(storage) == []
    with pytest.raises(ObjectNotFound):
        await storage.stat("a/key")
    await put_bytes(storage, "a/other", b"")
    assert await storage.sweep_temporaries(3600) == 0
    assert left.exists()
    assert await storage.sweep_temporaries(0) == 1
    assert names(root) == ["a", "a/other"]


async def test_open_sweeps_what_is_a_day_old_by_the_clock_of_the_file_system(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "c").mkdir()
    now = (root / "c").stat().st_mtime
    for name, age_s in (
        ("a/b/.tmp-old", STALE_TEMPORARY_S + 60),
        ("c/.tmp-young", STALE_TEMPORARY_S - 60),
        ("c/.tmp-future", -3600.0),
        ("c/key", STALE_TEMPORARY_S * 99),
    ):
        (root / name).touch()
        os.utime(root / name, (now - age_s, now - age_s))
    storage = await FilesystemStorage.open(root)
    assert names(root) == ["c", "c/.tmp-future", "c/.tmp-young", "c/key"]
    await storage.aclose()


async def test_a_sweep_without_time_does_nothing(root: Path, storage: FilesystemStorage) -> None:
    (root / ".tmp-old").touch()
    assert await storage.sweep_temporaries(0, within_s=0) == 0
    assert await storage.sweep_temporaries(0) == 1


async def test_sweeping_a_clean_repository_writes_nothing(
    root: Path, storage: FilesystemStorage
) -> None:
    before = root.stat().st_mtime_ns
    assert await storage.sweep_temporaries(0) == 0
    assert root.stat().st_mtime_ns == before


# A thread that is stuck


class StuckSync:
    """`fsync` that waits to be let go, as on a server that does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.reached.set()
        assert self.go.wait(20)
        self._fsync(descriptor)


async def put_until_stuck(storage: Storage, stuck: StuckSync, cancels: int) -> float:
    """Cancel a `put` whose commit is stuck; seconds until it ended."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(put_bytes(storage, "a/key", b"body"))
        while not stuck.reached.is_set():
            await asyncio.sleep(0.001)
        started = loop.time()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.01)
    assert task.cancelled()
    return loop.time() - started


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancelled_put_does_not_wait_for_a_dead_server(
    root: Path, monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    storage = FilesystemStorage(Root.open(root), Threads(2, "test", patience_s=0.2), 2)
    stuck = StuckSync(monkeypatch)
    assert await put_until_stuck(storage, stuck, cancels) < 2
    stuck.go.set()
    await storage.aclose()
    assert names(root) == []


async def test_a_cancelled_commit_is_waited_for_and_undone(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = StuckSync(monkeypatch)
    threading.Timer(0.2, stuck.go.set).start()
    assert await put_until_stuck(storage, stuck, 1) >= 0.1
    assert names(root) == []


async def test_an_object_that_was_there_for_long_is_not_taken_back(root: Path) -> None:
    """Its writer may have been stopped in between, and somebody else may rely on it by now."""
    for within_s, left in ((60.0, []), (0.0, ["key"])):
        writer = posix_writer.Writer(Root.open(root), "key")
        writer.open()
        writer.write([b"body"])
        writer.commit()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(posix_writer, "UNDONE_WITHIN_S", within_s)
            writer.abort()
        assert names(root) == left


async def test_a_cancelled_delete_stops_within_its_batch(
    root: Path, storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()
    unlink = os.unlink

    def slow(path: bytes) -> None:
        reached.set()
        assert go.wait(20)
        unlink(path)

    for number in range(10):
        (root / f"{number}").touch()
    monkeypatch.setattr(os, "unlink", slow)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(storage.delete(f"{number}" for number in range(10)))
        while not reached.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
    go.set()
    await storage.aclose()
    await asyncio.sleep(0.1)
    assert len(names(root)) == 9


def open_files(root: Path) -> list[str]:
    """The files below `root` that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(f"{root}/")]


async def test_no_file_stays_open(root: Path, storage: FilesystemStorage) -> None:
    await storage.put("a/key", zeros(4))
    rng = random.Random(5)

    async def read_one_block() -> None:
        async with storage.get("a/key") as stream:
            assert open_files(root)
            await anext(stream)

    await read_one_block()
    for turn in range(60):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(get_bytes(storage, "a/key"))
            writing = group.create_task(storage.put(f"a/{turn}", zeros(3)))
            await asyncio.sleep(rng.uniform(0, 0.003))
            reading.cancel()
            writing.cancel()
    assert open_files(root) == []


async def test_the_default_executor_is_never_used(storage: FilesystemStorage) -> None:
    await storage.verify()
    assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None


async def test_threads_are_bounded_and_end(root: Path) -> None:
    storage = await FilesystemStorage.open(root, threads=3)
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(storage.put(f"{number}", zeros(2)))
    ours = [each for each in threading.enumerate() if each.name.startswith("tidelog-filesystem")]
    assert 0 < len(ours) <= 3
    await storage.aclose()
    for thread in ours:
        await asyncio.to_thread(partial(thread.join, 5))
        assert not thread.is_alive()


# What else lies in a directory


async def test_what_is_no_object_is_not_listed(root: Path, storage: FilesystemStorage) -> None:
    await put_bytes(storage, "a/key", b"body")
    (root / "lost+found").mkdir()
    (root / "lost+found/#123").touch()
    (root / ".snapshot").mkdir()
    (root / ".snapshot/key").touch()
    (root / "a/.nfs0000000001").touch()
    os.mkfifo(root / "a/fifo")
    (root / "dangling").symlink_to("nowhere")
    with open(os.fsencode(root) + b"/not-\xff-utf8", "wb"):  # noqa: PTH123
        pass
    assert await listed(storage) == ["a/key"]
    for key in ("a/fifo", "dangling"):
        with pytest.raises(ObjectNotFound):
            await get_bytes(storage, key)
        with pytest.raises(ObjectNotFound):
            await storage.stat(key)


async def test_a_directory_may_be_a_link_to_another_disk(
    root: Path, storage: FilesystemStorage, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "chunks").symlink_to(tmp_path / "elsewhere")
    await put_bytes(storage, "chunks/rs0/key", b"body")
    assert await listed(storage) == ["chunks/rs0/key"]
    assert names(tmp_path / "elsewhere") == ["rs0", "rs0/key"]
    await storage.delete(["chunks/rs0/key"])
    assert (root / "chunks").is_symlink()


async def test_a_file_that_shrinks_while_it_is_read_is_harmed(
    root: Path, storage: FilesystemStorage
) -> None:
    await storage.put("a/key", zeros(3))

    async def read() -> None:
        async with storage.get("a/key") as stream:
            async for _block in stream:
                os.truncate(root / "a/key", MIB)

    with pytest.raises(IntegrityError, match="'a/key'"):
        await read()


async def test_directories_come_and_go_under_concurrent_use(
    root: Path, storage: FilesystemStorage
) -> None:
    other = await FilesystemStorage.open(root)

    async def work(client: Storage, name: str) -> None:
        for turn in range(40):
            key = f"a/b/c/{name}{turn}"
            await put_bytes(client, key, b"body")
            await client.delete([key])

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(storage, f"x{number}-"))
            group.create_task(work(other, f"y{number}-"))
    assert names(root) == []
    await other.aclose()


async def test_addresses_are_uris(tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    storage = await FilesystemStorage.open(tmp_path / "with space")
    assert storage.address.startswith("file:///")
    assert storage.address.endswith("/with%20space")
    await storage.aclose()

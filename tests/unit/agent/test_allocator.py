"""The C library's arenas, in a process of its own since what is set cannot be taken back; and what
goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from agent import allocator

_PROGRAM = """
import ctypes, sys, threading
from agent.allocator import ARENAS, keep_few_arenas

libc = ctypes.CDLL(None)
if not hasattr(libc, "malloc_info"):
    sys.exit(77)  # not glibc, which alone has arenas
assert keep_few_arenas()
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(12)

def hold():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()

threads = [threading.Thread(target=hold) for _ in range(12)]
[each.start() for each in threads]
[each.join() for each in threads]
libc.fopen.restype = ctypes.c_void_p
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(out))
libc.fclose(ctypes.c_void_p(out))
"""


def test_many_threads_share_few_arenas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 77), done.stderr
    if done.returncode == 0:
        assert 1 <= done.stdout.count("<heap nr=") <= 2, done.stdout


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_what_is_free_between_blocks_goes_back_to_the_system_where_much_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = [b"x" * 100_000 for _ in range(1000)]
    kept = blocks[::50]
    blocks.clear()
    before = allocator.resident_bytes()
    monkeypatch.setattr(allocator, "TRIM_FROM_BYTES", before * 2)
    assert not allocator.give_back(), "little is held"
    monkeypatch.setattr(allocator, "TRIM_FROM_BYTES", 0)
    assert allocator.give_back()
    assert before - allocator.resident_bytes() > 50 << 20
    assert len(kept) == 20

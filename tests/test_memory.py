"""Memory of a process that speaks for long: new shapes take none, and flatness is told as it is."""

import platform
import subprocess
import sys

import pytest
import torch

SHAPES = """
import ctypes, torch
from sayso.inference.memory import hold_little
hold_little()
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
layer = torch.nn.Conv1d(256, 256, 7, groups=256)
def used(lengths):
    with torch.inference_mode():
        for length in lengths:
            layer(torch.zeros(1, 256, length))
    return libc.mallinfo2().uordblks / 2**20
before = used(range(100, 300))
assert used(range(300, 1100)) - before < 2, used([]) - before
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
def test_new_shapes_do_not_make_a_process_larger():
    subprocess.run([sys.executable, "-c", SHAPES], check=True)


def test_a_book_that_grows_or_swings_is_not_called_flat():
    book = pytest.importorskip("benchmarks.book", reason="the bench extra is absent")
    samples = [(second / 2, 100.0 + second // 120) for second in range(11 * 120 + 60)]
    assert book.by_minutes(samples) == [102.0 + minute for minute in range(9)]
    found = book.flatness([102.0 + minute for minute in range(9)])
    assert found["lowest and highest over it"] == pytest.approx([-4 / 106, 4 / 106])
    assert found["thirds, MB in the mean"] == [103, 106, 109]
    with pytest.raises(ValueError, match="2 minutes have no thirds: give more --words"):
        book.flatness([1.0, 2.0])

"""Xids in the kernel log, in each form that it comes in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.preflight.kernel_log import XidEvent, read_kernel_log, xids

LINES = """\
6,1201,4205001,-;nvidia-nvlink: Nvlink Core is being initialized, major device number 511
4,2311,8154923411,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen
[ 8155.104233] NVRM: Xid (PCI:0000:CB:00): 13, Graphics SM Warp Exception on (GPC 7, TPC 0)
<4>[12.5] NVRM: Xid (PCI:0000:5d:00): 154, GPU recovery action changed from 0x0 (None) to 0x1
Oct 01 13:00:00 node kernel: NVRM: Xid (PCI:0000:06:00): 94, pid=42, Contained
NVRM: Xid (0000:01:00.0): 43
NVRM: GPU 0000:3b:00.0: RmInitAdapter failed!
"""


def test_every_form_of_the_log_gives_time_place_and_number() -> None:
    found = [(event.at_s, event.pci, event.number) for event in xids(LINES.splitlines())]
    assert found == [
        (8154.923411, "0000:3b:00", 79),
        (8155.104233, "0000:cb:00", 13),
        (12.5, "0000:5d:00", 154),
        (None, "0000:06:00", 94),
        (None, "0000:01:00", 43),
    ]


@given(
    st.integers(0, 10**13),
    st.integers(0, 2**16 - 1).map("{:04x}:5d:00".format),
    st.integers(0, 999),
    st.text("abcXid(:)79, =", min_size=1).filter(lambda text: text == text.strip()),
)
def test_what_the_driver_writes_is_read_back(us: int, pci: str, number: int, text: str) -> None:
    line = f"4,7,{us},-;NVRM: Xid (PCI:{pci}): {number}, {text}"
    assert xids([line, "4,8,1,-;" + text]) == [XidEvent(us / 1e6, pci, number, text)]


def test_a_saved_log_keeps_only_its_xids(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(LINES)
    reading = read_kernel_log(path)
    assert reading.fault is None
    assert len(reading.lines) == 5
    assert reading.uptime_s > 0


def test_a_log_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    reading = read_kernel_log(tmp_path / "none")
    assert reading.lines == ()
    assert reading.fault == f"{tmp_path}/none: No such file or directory"


def test_the_kernels_own_log_is_read_to_its_end_or_says_why_not() -> None:
    reading = read_kernel_log()
    assert reading.fault is None or reading.fault.startswith("/dev/kmsg: ")


def test_the_xid_of_a_slice_is_its_gpus() -> None:
    """As NVIDIA's driver writes it where a GPU has slices (MIG)."""
    line = "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9)."
    text = "pid=7194, Contained: CE User Channel (0x9)."
    assert xids([line]) == [XidEvent(None, "0000:01:00", 94, text)]


@pytest.mark.parametrize("line", ["", "NVRM: Xid", "NVRM: Xid (PCI:0000:3b:00): none", "Xid 79"])
def test_other_lines_are_no_xids(line: str) -> None:
    assert xids([line]) == []

"""Small, full and read-only disks for tests, in a mount namespace that ends with the test process."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLONE_NEWNS = 0x00020000


def enter_namespace() -> None:
    """Let mounts of this process and its children be seen by nobody else; skip where that is refused."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        pytest.skip(f"needs the right to mount: unshare: {os.strerror(ctypes.get_errno())}")
    mount("--make-rprivate", "/")


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


class Disk:
    """A disk of its own at `path`, with what lay there."""

    def __init__(self, path: Path, size_kib: int) -> None:
        self.path = path
        before = path.with_name(f"{path.name}.before")
        path.rename(before)
        path.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(path))
        shutil.copytree(before, path, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(before)

    def fill(self) -> None:
        with (self.path / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1024)):
                    pass
            except OSError:
                return

    def grow(self) -> None:
        (self.path / "ballast").unlink(missing_ok=True)
        mount("-o", "remount,size=64m", str(self.path))


def make_read_only(path: Path) -> None:
    mount("--bind", str(path), str(path))
    mount("-o", "remount,bind,ro", str(path))


def make_writable(path: Path) -> None:
    mount("-o", "remount,bind,rw", str(path))


def unmount(folder: Path) -> None:
    """Whatever is mounted below `folder`, the last first."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if line.split()[1].startswith(str(folder)):
            subprocess.run(["umount", "--lazy", line.split()[1]], check=True)

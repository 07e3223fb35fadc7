"""Files of a Debian package, by `apt-get download` and `dpkg-deb`: no root, nothing installed."""

import os
import subprocess
from pathlib import Path

from components.errors import DataError, InfraError, UserError

NETWORK_SIGNS = ("Failed to fetch", "Could not resolve", "Temporary failure", "Could not connect")
NETWORK_HINT = "check the network and apt's sources, then run again"


def package_files(package: str, pattern: str, cache: Path) -> tuple[Path, list[tuple[str, Path]]]:
    """The .deb, and name and path of each regular file in it that matches the glob `pattern`.

    `package` is a name, or NAME=VERSION; names begin with the .deb's own name. Both the .deb and
    what is in it stay in `cache`. Raises DataError if there is no such package, UserError if
    this is no Debian, InfraError if the mirror cannot be reached.
    """
    folder = cache / "deb" / package
    deb = _download(package, folder)
    root = folder / "root"
    if not root.exists():
        partial = folder / "root.partial"
        _run(["dpkg-deb", "-x", str(deb), str(partial)], folder, f"package {package}")
        partial.rename(root)
    return deb, [
        (f"{deb.stem}/{path.relative_to(root).as_posix()}", path)
        for path in sorted(root.glob(pattern.lstrip("/")))
        if path.is_file() and not path.is_symlink()
    ]


def _download(package: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("*.deb"))
    if not found:
        partial = folder / "partial"
        partial.mkdir(exist_ok=True)
        what = f"package {package}"
        try:
            _run(["apt-get", "download", package], partial, what)
        except (DataError, InfraError):  # the machine's lists are empty or old: fetch our own
            lists = _own_lists(folder.parent / "apt")
            said = _run(["apt-get", *lists, "update"], partial, what)
            try:
                _run(["apt-get", *lists, "download", package], partial, what)
            except DataError as error:
                if _failed_to_reach(said):  # then nobody knows whether there is such a package
                    raise InfraError(
                        f"{what}: apt-get update failed: {said.splitlines()[0]}", NETWORK_HINT
                    ) from error
                raise
        for deb in partial.glob("*.deb"):
            deb.rename(folder / deb.name)
        found = sorted(folder.glob("*.deb"))
    if not found:
        raise DataError(f"package {package}: apt-get downloaded nothing", "check the name")
    return found[0]


def _own_lists(folder: Path) -> list[str]:
    """Options that keep apt's lists in `folder`, so that no root is needed to update them."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return [
        f"-oDir::State={folder.absolute() / 'state'}",
        f"-oDir::State::lists={folder.absolute() / 'state/lists'}",
        "-oDir::State::status=/var/lib/dpkg/status",
        f"-oDir::Cache={folder.absolute() / 'cache'}",
    ]


def _run(command: list[str], folder: Path, what: str) -> str:
    """Run to success and return the standard error output."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{what}: {command[0]} is not on this machine",
            "sources of kind deb need Debian or one of its relatives",
        ) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        line = errors[0] if errors else f"{command[0]} ended with {done.returncode}"
        if _failed_to_reach(done.stderr):
            raise InfraError(f"{what}: {line}", NETWORK_HINT)
        raise DataError(f"{what}: {line}", "check the name and the version of the package")
    return done.stderr


def _failed_to_reach(said: str) -> bool:
    return any(sign in said for sign in NETWORK_SIGNS)

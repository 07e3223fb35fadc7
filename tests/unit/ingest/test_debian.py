import hashlib
import subprocess
from pathlib import Path

import pytest

from components.errors import DataError, InfraError, UserError
from components.ingest.debian import package_files


def build_package(folder: Path, name: str) -> Path:
    """A small real .deb with two pages, a text and a link that leads out of the package."""
    root = folder / f"root-{name}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: pages to read\n"
    )
    docs = root / "usr/share/doc" / name
    (docs / "sub").mkdir(parents=True)
    (docs / "b.html").write_text("<p>b</p>")
    (docs / "sub/a.html").write_text("<p>a</p>")
    (docs / "copyright").write_text("free")
    (docs / "out.html").symlink_to("/etc/hostname")
    deb = folder / f"{name}_1.0_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(root), str(deb)],
        check=True,
        capture_output=True,
    )
    return deb


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package archive on this disk that apt is told to use, with no lists fetched from it yet."""
    folder = tmp_path / "archive"
    folder.mkdir()
    deb = build_package(folder, "two-pages")
    content = deb.read_bytes()
    (folder / "Packages").write_text(
        "Package: two-pages\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\n"
        f"Filename: ./{deb.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\nDescription: pages to read\n"
    )
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "parts").mkdir()
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\n'
        f'Dir::Etc::sourceparts "{tmp_path}/parts";\n'
        f'Dir::State::lists "{tmp_path}/no-lists";\n'
        'APT::Sandbox::User "root";\nAcquire::Retries "0";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    return folder


def test_a_package_is_fetched_and_its_pages_are_found(repository: Path, tmp_path: Path) -> None:
    deb, files = package_files("two-pages", "usr/share/doc/**/*.html", tmp_path / "cache")
    assert deb.read_bytes() == (repository / "two-pages_1.0_all.deb").read_bytes()
    assert [(name, path.read_text()) for name, path in files] == [
        ("two-pages_1.0_all/usr/share/doc/two-pages/b.html", "<p>b</p>"),
        ("two-pages_1.0_all/usr/share/doc/two-pages/sub/a.html", "<p>a</p>"),
    ]


def test_what_is_in_the_cache_is_not_fetched_again(repository: Path, tmp_path: Path) -> None:
    first = package_files("two-pages", "**/copyright", tmp_path / "cache")
    (repository / "two-pages_1.0_all.deb").unlink()
    assert package_files("two-pages", "**/copyright", tmp_path / "cache") == first


def test_a_package_that_does_not_exist_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="package no-such: E: Unable to locate package no-such"):
        package_files("no-such", "*", tmp_path / "cache")


def test_a_mirror_that_is_away_is_worth_another_try(repository: Path, tmp_path: Path) -> None:
    sources = repository.parent / "sources.list"
    sources.write_text("deb [trusted=yes] http://127.0.0.1:9/debian ./\n")
    with pytest.raises(InfraError, match="package two-pages: "):
        package_files("two-pages", "*", tmp_path / "cache")


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="package x: apt-get is not on this machine"):
        package_files("x", "*", tmp_path / "cache")


def test_a_package_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    deb = build_package(tmp_path, "cut")
    folder = tmp_path / "cache/deb/cut"
    folder.mkdir(parents=True)
    (folder / deb.name).write_bytes(deb.read_bytes()[:-20])
    with pytest.raises(DataError, match="package cut: "):
        package_files("cut", "**/*", tmp_path / "cache")
    assert not (folder / "root").exists()

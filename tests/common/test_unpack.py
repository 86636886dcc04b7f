"""Archives from elsewhere: their files, and nothing that could do harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from robustdistiller.common.unpack import ArchiveError, unpack


def tar(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            member.size = 4 if member.isfile() else 0
            archive.addfile(member, io.BytesIO(b"rain") if member.isfile() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o4777
    return info


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_a_tar_archive(mode, tmp_path) -> None:
    archive = tar(tmp_path / "noname", member("a", tarfile.DIRTYPE), member("./a/b/rain.wav"), mode=mode)
    assert unpack(archive, tmp_path / "out") == 1
    file = tmp_path / "out" / "a" / "b" / "rain.wav"
    assert file.read_bytes() == b"rain" and file.stat().st_mode & 0o7111 == 0, "modes are not taken"


def test_a_zip_archive(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/", "")
        archive.writestr("a/rain.wav", "rain")
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == 1
    assert (tmp_path / "out/a/rain.wav").read_text() == "rain"


@pytest.mark.parametrize("name", ["/etc/rain", "../rain", "a/../../rain", "C:/rain", "..\\rain", "."])
def test_paths_out_of_the_folder(name, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "rain")
    for archive in (tar(tmp_path / "a.tar.gz", member(name)), tmp_path / "a.zip"):
        with pytest.raises(ArchiveError, match="a path out of its folder"):
            unpack(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("*rain"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(kind, tmp_path) -> None:
    archive = tar(tmp_path / "a.tar.gz", member("a", kind, "/etc"), member("a/passwd"))
    with pytest.raises(ArchiveError, match=r"holds 'a', which is a link or a device"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_archive(tmp_path) -> None:
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(ArchiveError, match="a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_archives(tmp_path) -> None:
    whole = tar(tmp_path / "whole.tar.gz", *(member(f"{number}.wav") for number in range(100))).read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("rain.wav", "rain" * 100)
    content = (tmp_path / "whole.zip").read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[:20],
        b"no archive",
        b"",
        content.replace(b"rainrain", b"sun.rain", 1),
    ):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ArchiveError, match=r"it is damaged, or no archive \("):
            unpack(tmp_path / "damaged", tmp_path / "out")

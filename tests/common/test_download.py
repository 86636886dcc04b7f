"""A download goes on from the part that an earlier process left, if it is of the same file."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustdistiller.common import download as module
from robustdistiller.common.download import ATTEMPTS, ChecksumError, download, remove_part
from tests.web import Server

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def web(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    server = Server()
    server.files["/a.zip"] = CONTENT
    yield server
    server.close()


def fail(web: Server, file: Path, *cuts: int) -> None:
    web.cuts = [*cuts, *[0] * ATTEMPTS]
    with pytest.raises(OSError, match=r"the connection ended after \d+ of 25600 bytes"):
        download(f"{web.url}/a.zip", file, keep=True)
    web.cuts, web.asked[:] = [], []


def test_the_rest_is_asked_for(web, tmp_path) -> None:
    fail(web, tmp_path / "a.part", 5000)
    download(f"{web.url}/a.zip", tmp_path / "a.part", keep=True)
    assert (tmp_path / "a.part").read_bytes() == CONTENT
    assert [asked for _, _, asked in web.asked] == ["bytes=5000-"]
    remove_part(tmp_path / "a.part")
    assert list(tmp_path.iterdir()) == []


def test_as_often_as_it_gets_further(web, tmp_path) -> None:
    web.cuts = [100] * 3 * ATTEMPTS
    download(f"{web.url}/a.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and len(web.asked) == 3 * ATTEMPTS + 1


@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT[:1000], CONTENT * 2])
def test_another_file_meanwhile(web, tmp_path, other) -> None:
    fail(web, tmp_path / "a.part", 5000)
    web.files["/a.zip"] = other
    download(f"{web.url}/a.zip", tmp_path / "a.part", keep=True)
    assert (tmp_path / "a.part").read_bytes() == other


def test_a_part_that_is_whole_or_longer(web, tmp_path) -> None:
    fail(web, tmp_path / "a.part", 5000)
    for left in (CONTENT, CONTENT + b"more"):
        (tmp_path / "a.part").write_bytes(left)
        download(f"{web.url}/a.zip", tmp_path / "a.part", keep=True)
        assert (tmp_path / "a.part").read_bytes() == CONTENT


def test_a_process_that_was_killed(web, tmp_path) -> None:
    web.files["/a.zip"] = content = CONTENT * 100
    code = (
        "import os, signal, sys; from pathlib import Path; from robustdistiller.common import download\n"
        "download.tqdm.update = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "download.download(sys.argv[1], Path(sys.argv[2]), keep=True)"
    )
    part = tmp_path / "a.part"
    killed = subprocess.run([sys.executable, "-c", code, f"{web.url}/a.zip", str(part)])
    assert killed.returncode == -signal.SIGKILL and 0 < part.stat().st_size < len(content)
    start = part.stat().st_size
    download(f"{web.url}/a.zip", part, keep=True)
    assert part.read_bytes() == content and web.asked[-1][2] == f"bytes={start}-"


def test_without_keeping_it_begins_anew(web, tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 30_000)
    download(f"{web.url}/a.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and web.asked[0][2] is None


@pytest.mark.parametrize("checksum", ["md5:00", "sha256:00"])
def test_a_wrong_checksum(web, tmp_path, checksum) -> None:
    with pytest.raises(ChecksumError, match=r"its (MD5|SHA-256) is [0-9a-f]{32,64}, expected 00"):
        download(f"{web.url}/a.zip", tmp_path / "a", checksum)


def test_a_full_disk_is_no_reason_to_try_again(web, tmp_path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.tqdm, "update", full)
    with pytest.raises(OSError, match="No space left") as error:
        download(f"{web.url}/a.zip", tmp_path / "a", keep=True)
    assert error.value.errno == errno.ENOSPC and len(web.asked) == 1

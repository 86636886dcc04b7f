"""Digests of many files: of contents, computed once, and again whenever a file may have changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from robustdistiller.common import digests
from robustdistiller.common.digests import content_digests


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that are read, one entry each time."""
    seen, stock = [], digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: seen.append(Path(path).name) or stock(path))
    return seen


def write(path: Path, content: bytes, time_s: int = 1_000_000_000) -> Path:
    path.write_bytes(content)
    os.utime(path, (time_s, time_s))
    return path


def test_files_are_read_once_until_size_or_time_change(tmp_path, read) -> None:
    one, two = write(tmp_path / "one", b"one"), write(tmp_path / "two", b"two")
    wanted = [hashlib.sha256(content).hexdigest() for content in (b"one", b"two", b"one")]
    assert content_digests([one, two, one]) == wanted == content_digests([one, two, one])
    assert sorted(read) == ["one", "two"]
    write(two, b"owt", 1_000_000_001)
    write(one, b"longer")
    assert content_digests([one, two]) == [hashlib.sha256(c).hexdigest() for c in (b"longer", b"owt")]
    assert sorted(read) == ["one", "one", "two", "two"]


def test_names_that_are_no_text(tmp_path, read) -> None:
    """Of a corpus from the time before UTF-8."""
    files = [os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"), str(tmp_path / "caf\\udce9.wav")]
    wanted = []
    for file in files:
        content = os.fsencode(file)[-12:]
        write(Path(file), content)
        wanted.append(hashlib.sha256(content).hexdigest())
    assert content_digests(files) == wanted == content_digests(files) and len(read) == 2


def test_a_file_that_was_written_just_now_is_not_trusted(tmp_path, read) -> None:
    """Its content may change again while its time, as the file system counts, does not."""
    path = write(tmp_path / "new", b"a", 7_258_118_400)
    content_digests([path])
    write(path, b"b", 7_258_118_400)
    assert content_digests([path]) == [hashlib.sha256(b"b").hexdigest()] and read == ["new", "new"]


def test_without_a_place_to_remember_they_are_computed(tmp_path, monkeypatch, read, own_cache) -> None:
    own_cache.write_text("no folder")
    path = write(tmp_path / "one", b"one")
    assert content_digests([path]) == content_digests([path]) and read == ["one", "one"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "robustdistiller").mkdir(parents=True)
    (tmp_path / "other" / "robustdistiller" / "digests.sqlite").write_bytes(b"no database at all, but long enough" * 99)
    assert content_digests([path]) == [hashlib.sha256(b"one").hexdigest()]


def test_many_files_are_looked_up_together(tmp_path, read) -> None:
    files = [write(tmp_path / str(number), b"%d" % number) for number in range(2300)]
    first = content_digests(files)
    assert content_digests(files[::-1]) == first[::-1] and len(read) == 2300 and len(set(first)) == 2300


def test_a_file_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        content_digests([tmp_path / "none"])

"""Plain URLs: the file is whole or absent, a broken connection is taken up again, errors are one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import threading

import pytest

from robustdistiller import mini
from robustdistiller.common.download import ATTEMPTS
from robustdistiller.upstream import find_local, resolve
from robustdistiller.upstream.pretrained import resolve as resolving
from robustdistiller.upstream.pretrained.download import cached_path, fetch
from robustdistiller.upstream.pretrained.registry import MODELS

CONTENT = bytes(range(256)) * 1000


def kept(home) -> list[str]:
    """Files in the cache, without locks."""
    return sorted(path.name for path in home.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.fixture
def url(web) -> str:
    web.files["/a.ckpt"] = CONTENT
    return f"{web.url}/a.ckpt"


def test_downloaded_once_and_again_on_request(web, url) -> None:
    assert find_local(url) is None
    path = resolve(url)
    assert path.read_bytes() == CONTENT and path.suffix == ".ckpt"
    assert resolve(url) == find_local(url) == path and len(web.asked) == 1
    web.files["/a.ckpt"] = b"new"
    assert resolve(url, refresh=True).read_bytes() == b"new"


def test_the_cache_is_s3prls(url, home) -> None:
    path = resolve(url)
    code = f"from s3prl.util.download import _urls_to_filepaths as f; print(f({url!r}, download=False))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == str(path), found.stderr


def test_the_folder_that_s3prl_was_told_is_used(tmp_path, monkeypatch) -> None:
    from s3prl.util import download

    monkeypatch.setattr(download, "_download_dir", tmp_path / "elsewhere")
    monkeypatch.setitem(sys.modules, "s3prl.util.download", download)
    assert cached_path("https://a.org/b.pt").parent == tmp_path / "elsewhere"


def test_a_broken_connection_is_taken_up_where_it_ended(web, url) -> None:
    web.cuts = [1000, 70_000]
    assert resolve(url).read_bytes() == CONTENT
    assert [asked for _, _, asked in web.asked] == [None, "bytes=1000-", "bytes=71000-"]


def test_a_server_without_parts_gives_the_file_again(web, url) -> None:
    web.cuts, web.gives_parts = [1000], False
    assert resolve(url).read_bytes() == CONTENT


def test_a_file_that_changes_meanwhile_is_not_mixed(web, url, monkeypatch) -> None:
    from robustdistiller.common import download

    web.cuts, other = [1000], CONTENT[::-1]
    monkeypatch.setattr(download.time, "sleep", lambda _: web.files.update({"/a.ckpt": other}))
    assert resolve(url).read_bytes() == other


@pytest.mark.parametrize("chunked", [False, True])
def test_what_stays_incomplete_is_not_kept(web, url, home, chunked) -> None:
    web.chunked, web.gives_parts, web.cuts = chunked, False, [1000] * ATTEMPTS
    with pytest.raises(FileNotFoundError, match=r"could not be fetched .the connection ended") as error:
        resolve(url)
    assert "\n" not in str(error.value) and str(cached_path(url)) in str(error.value)
    assert len(web.asked) == ATTEMPTS and kept(home) == []


@pytest.mark.parametrize(
    ("statuses", "requests", "message"),
    [([503, 429], 3, None), ([404], 1, "answered 404 Not Found"), ([503] * 9, ATTEMPTS, "answered 503")],
)
def test_busy_servers_are_asked_again_and_refusals_are_not(web, url, home, statuses, requests, message) -> None:
    web.statuses = statuses
    if message is None:
        assert resolve(url).read_bytes() == CONTENT
    else:
        with pytest.raises(FileNotFoundError, match=message):
            resolve(url)
        assert kept(home) == []
    assert len(web.asked) == requests


def test_spaces_and_letters_of_all_kinds_in_a_url(web, home) -> None:
    web.files["/m%C3%A9s%20mod%C3%A8les/a%2Fb.ckpt"] = CONTENT
    assert resolve(f"{web.url}/més modèles/a%2Fb.ckpt").read_bytes() == CONTENT
    assert [path for _, path, _ in web.asked] == ["/m%C3%A9s%20mod%C3%A8les/a%2Fb.ckpt"]


def test_a_web_page_in_the_place_of_a_file_is_not_kept(web, url, home) -> None:
    """Of a login, or the page that shows a file."""
    web.media_type = "text/html; charset=utf-8"
    assert resolve(url).read_bytes() == CONTENT, "whatever the server calls it"
    (page,) = web.files
    web.files[page], web.asked[:] = b"\n<!DOCTYPE html><html></html>", []
    with pytest.raises(FileNotFoundError, match="the server sent a web page, not a file"):
        resolve(url, refresh=True)
    assert len(web.asked) == 1 and resolve(url).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(url, home) -> None:
    with pytest.raises(OSError, match=r"its SHA-256 is .*, expected 00"):
        fetch(url, sha256="00")
    assert kept(home) == []
    assert fetch(url, sha256=hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_processes_that_want_the_same_file_download_it_once(web, url) -> None:
    threads = [threading.Thread(target=resolve, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(web.asked) == 1


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.file])
def test_a_registered_model_from_a_copy_the_cache_and_the_web(name, web, student, monkeypatch) -> None:
    model = dataclasses.replace(MODELS[name], sha256=hashlib.sha256(student.read_bytes()).hexdigest())
    monkeypatch.setitem(resolving.MODELS, name, model)
    monkeypatch.setattr(type(model), "url", property(lambda self: f"{web.url}/{self.file}"))
    web.files[f"/{model.file}"] = student.read_bytes()
    variable = f"{name.upper()}_CKPT"
    monkeypatch.setenv(variable, str(student))
    assert resolve(name) == find_local(name) == student
    monkeypatch.setenv(variable, "/nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"checkpoint /nowhere.ckpt: expected a file or folder"):
        resolve(name)
    monkeypatch.delenv(variable)
    assert find_local(name) is None
    assert resolve(name) == find_local(name) == cached_path(model.url)
    cached_path(model.url).unlink()
    web.statuses = [403]
    with pytest.raises(FileNotFoundError) as error:
        resolve(name)
    for part in (model.url, "answered 403", str(cached_path(model.url)), f"{variable}=FILE"):
        assert part in str(error.value)


def test_what_is_shipped_has_a_name() -> None:
    assert resolve("robustdistiller_mini") == mini.teacher_checkpoint()
    assert resolve("robustdistiller_mini_student") == mini.student_checkpoint()
    for name in ("robustdistiller_mini", "robustdistiller_mini_student"):
        assert round(resolve(name).stat().st_size / 1e6, 1) == MODELS[name].size_mb


def test_the_mini_teacher_of_an_installation_in_an_archive(tmp_path, home, monkeypatch) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        archive.writestr("robustdistiller/mini/teacher/teacher.ckpt", b"weights")
    inside = zipfile.Path(str(tmp_path / "package.zip"), "robustdistiller/mini/")
    monkeypatch.setattr(resolving, "files", lambda _: inside)
    path = resolve("robustdistiller_mini")
    assert path.read_bytes() == b"weights" and path.is_relative_to(home)
    path.write_bytes(b"older")
    assert resolve("robustdistiller_mini").read_bytes() == b"weights"


def test_what_a_killed_download_left_is_removed(url, web) -> None:
    folder = cached_path(url).parent
    folder.mkdir(parents=True)
    code = (
        "import os, sys; from robustdistiller.common.files import write_atomically; "
        "write_atomically(sys.argv[1], lambda file: (file.write_bytes(b'half'), os._exit(9)))"
    )
    assert subprocess.run([sys.executable, "-c", code, cached_path(url)]).returncode == 9
    assert len(list(folder.iterdir())) == 1 and find_local(url) is None
    assert resolve(url).read_bytes() == CONTENT
    assert sorted(path.suffix for path in folder.iterdir()) == [".ckpt", ".lock"]

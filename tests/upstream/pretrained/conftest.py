"""A home of its own for each test, and local servers in place of the web and of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, export_checkpoint, save_checkpoint
from tests.web import Server


class Hub(Server):
    """What huggingface_hub asks of the Hub: the files of revisions, with their commit.

    Attributes:
        revisions: of a repository, their commits by name.
        private: token of each private repository.
        gated: repositories with terms to be accepted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.revisions: dict[str, dict[str, str]] = {}
        self.private: dict[str, str] = {}
        self.gated: set[str] = set()

    def add(self, repository: str, files: dict[str, bytes], revision: str = "main") -> str:
        """Commit files, and point a revision there; gives the commit."""
        commit = hashlib.sha1(json.dumps(sorted((n, c.hex()) for n, c in files.items())).encode()).hexdigest()
        self.revisions.setdefault(repository, {}).update({revision: commit, commit: commit})
        self.files |= {f"/{repository}/{commit}/{name}": content for name, content in files.items()}
        return commit

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request for ``/org/name/resolve/revision/file``."""
        asked = request.headers.get("Range")
        self.asked.append((request.command, request.path, asked))
        request.close_connection = True
        org, name, resolve, revision, file = [*request.path.strip("/").split("/", 4), "", "", "", ""][:5]
        repository = f"{org}/{name}"
        token = self.private.get(repository)
        if repository not in self.revisions or (token and request.headers.get("authorization") != f"Bearer {token}"):
            error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return self.send(request, 401, b"{}", error)
        if repository in self.gated:
            return self.send(request, 403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Gated"})
        commit = self.revisions[repository].get(revision)
        if resolve != "resolve" or commit is None:
            return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "None"})
        content = self.files.get(f"/{repository}/{commit}/{file}")
        if content is None:
            error = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit}
            return self.send(request, 404, b"{}", error)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(request, 206 if start else 200, content[start:], headers)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty home, so that no cache is found, and no pauses between attempts."""
    from robustdistiller.common import download

    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delitem(__import__("sys").modules, "s3prl.util.download", raising=False)
    return tmp_path / "home"


@pytest.fixture
def web() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    """A small checkpoint with prediction heads."""
    path = tmp_path_factory.mktemp("student") / "student.ckpt"
    config = EncoderConfig(
        embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4, prediction_layers=(4, 8)
    )
    save_checkpoint(path, SpeechEncoder(config), {})
    return path


@pytest.fixture(scope="session")
def hf_files(student, tmp_path_factory) -> dict[str, bytes]:
    """A Hugging Face model: its files by name."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    export_checkpoint(student, folder, "huggingface", drop_heads=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}

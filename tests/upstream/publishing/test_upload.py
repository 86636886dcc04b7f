"""Publishing to the Hub: one commit, nothing replaced unasked, each refusal one sentence that says what to do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from click.testing import Result
from huggingface_hub import constants
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from tests.web import Server

FILES = {"README.md", "config.json", "model.safetensors", "modeling_robustdistiller.py", "preprocessor_config.json"}


class Hub(Server):
    """What huggingface_hub asks when a folder is uploaded.

    Attributes:
        tokens: those that are valid, and whether they may write.
        commits: files of each commit, by name.
        visible: of each repository, whether everybody sees it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {"hf_write": True, "hf_read": False}
        self.commits: list[dict[str, bytes]] = []
        self.public: dict[str, bool] = {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request of the API; every one needs a token."""
        request.close_connection = True
        self.asked.append((request.command, request.path, None))
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        status, reply = self._reply(request.path.partition("?")[0], body, token)
        self.send(request, status, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def _reply(self, path: str, body: bytes, token: str) -> tuple[int, object]:
        if token not in self.tokens:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            asked = json.loads(body)
            if not self.tokens[token]:
                return 403, {"error": f"You don't have the rights to create a model under {asked['organization']}"}
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.public:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            private = asked.get("private") or asked.get("visibility") == "private"
            self.public[name] = not private
            return 200, {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        _, _, _, org, name, what, *_ = [*path.split("/"), ""]
        if f"{org}/{name}" not in self.public:
            return 404, {"error": "Repository not found"}
        if what == "tree":
            return 200, [{"type": "file", "path": p, "size": 1, "oid": "0"} for p in {".gitattributes", *self._there()}]
        if what == "preupload":
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if what == "commit":
            lines = [json.loads(line) for line in body.decode().splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.commits.append({file["path"]: base64.b64decode(file["content"]) for file in files})
            number = len(self.commits)
            address = f"{self.url}/{org}/{name}/commit/{number}"
            return 200, {"success": True, "commitOid": str(number), "commitUrl": address, "hookOutput": ""}
        files = [{"rfilename": p} for p in self._there()]
        private = not self.public[f"{org}/{name}"]
        return 200, {"id": f"{org}/{name}", "sha": "0" * 40, "private": private, "siblings": files}

    def _there(self) -> set[str]:
        return {name for commit in self.commits for name in commit}


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def student(tmp_path) -> None:
    save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(EncoderConfig.tiny(projection=True)), {"recipe": "ours"})


@pytest.fixture
def publish(hub, student, tmp_path, monkeypatch):
    """The command, for somebody of this token; the Hub's addresses are what a process reads from its environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"ENDPOINT": hub.url, "HF_TOKEN_PATH": "nowhere", "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value)

    def call(*words: str, token: str = "hf_write") -> Result:
        monkeypatch.setenv("HF_TOKEN", token)
        return CliRunner().invoke(app, ["publish", "student.ckpt", *words])

    return call


@pytest.fixture
def publish_in_a_process(hub, student, tmp_path):
    """The same in a process of its own: huggingface_hub reads its environment when it is imported."""

    def call(*words: str, **environment: str) -> subprocess.CompletedProcess:
        given = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        given |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **environment}
        command = [sys.executable, "-m", "robustdistiller.cli", "publish", "student.ckpt", *words]
        return subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return call


def test_a_student_is_one_commit_and_replaced_only_when_asked(publish, publish_in_a_process, hub, tmp_path) -> None:
    done = publish_in_a_process("--to", "me/student", "--license", "mit", HF_TOKEN="hf_write")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/me/student/commit/1" in done.stdout
    (commit,) = hub.commits
    assert commit.keys() == FILES and hub.public == {"me/student": True}
    card = commit["README.md"].decode()
    assert "\n# student\n" in card and 'from_pretrained("me/student", trust_remote_code=True)' in card
    assert str(tmp_path) not in card
    again = publish("--to", "me/student")
    assert again.exit_code == 2 and len(hub.commits) == 1
    assert "me/student holds 5 files already" in again.stderr and "--overwrite" in again.stderr
    replaced = publish("--to", "me/student", "--overwrite")
    assert replaced.exit_code == 0 and len(hub.commits) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "hf") == ["student.ckpt"]


def test_a_new_repository_can_be_private_and_of_a_class_of_transformers(publish, hub) -> None:
    assert publish("--to", "me/student", "--private", "--stock").exit_code == 0
    assert hub.public == {"me/student": False}
    assert hub.commits[0].keys() == FILES - {"modeling_robustdistiller.py"}
    assert b"trust_remote_code" not in hub.commits[0]["README.md"]


def test_what_is_to_be_private_is_not_uploaded_where_everybody_sees_it(publish, hub) -> None:
    hub.public["me/student"] = True
    done = publish("--to", "me/student", "--private")
    assert done.exit_code == 2 and not hub.commits
    assert "me/student is there already and public; make it private in its settings on the Hub" in done.stderr
    hub.public["me/student"] = False
    assert publish("--to", "me/student", "--private").exit_code == 0 and len(hub.commits) == 1


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "no token, or one that is not valid; give one of"),
        ("hf_read", "your token may not write to me; give one of"),
    ],
)
def test_a_token_that_will_not_do_is_one_sentence(token, words, publish, hub) -> None:
    done = publish("--to", "me/student", token=token)
    assert done.exit_code == 2 and not done.stdout and not hub.commits
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith(f"robustdistiller publish: me/student is not written: {words}")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is on (HF_HUB_OFFLINE)"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 could not be reached"),
    ],
)
def test_no_hub_is_one_sentence(environment, words, publish_in_a_process, hub) -> None:
    done = publish_in_a_process("--to", "me/student", HF_TOKEN="hf_write", **environment)
    assert done.returncode == 2 and not done.stdout and not hub.commits
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith(f"robustdistiller publish: me/student is not written: {words}")


def test_a_folder_of_the_same_name_is_a_folder(publish, hub, tmp_path) -> None:
    (tmp_path / "me").mkdir()
    for place in ("me/student", "./you/student"):
        assert publish("--to", place).exit_code == 0
        assert {path.name for path in (tmp_path / place).iterdir()} == FILES
    assert hub.asked == []

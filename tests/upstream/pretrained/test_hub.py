"""Models by their name on the Hugging Face Hub: revisions, private ones, offline, each error one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustdistiller.upstream import read_checkpoint

# huggingface_hub reads its environment when it is imported, so each call has a process of its own.
CALL = """
import json, sys, time
time.sleep = lambda seconds: None  # it waits between its attempts to reach a server
from robustdistiller.upstream.pretrained.resolve import find_local, resolve
from robustdistiller.upstream.pretrained.names import ModelName
for name in sys.argv[1:]:
    try:
        local = find_local(name)
        path = resolve(name)
        files = sorted(file.name for file in path.iterdir())
        print(json.dumps({"path": str(path), "local": local and str(local), "files": files}))
    except FileNotFoundError as error:
        print(json.dumps({"error": str(error)}))
assert "torch" not in sys.modules and "s3prl" not in sys.modules
"""


@pytest.fixture
def ask(hub, home, tmp_path):
    """Resolve names in a process, with some environment."""

    def call(*names: str, **environment: str) -> list[dict]:
        given = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        given |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "HOME": str(home), **environment}
        done = subprocess.run(
            [sys.executable, "-c", CALL, *names], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return call


def one_sentence(answer: dict) -> str:
    """The error of an answer."""
    assert "\n" not in answer["error"] and "Traceback" not in answer["error"]
    return answer["error"]


def test_downloaded_once_revisions_and_offline(hub, ask, hf_files) -> None:
    old = hub.add("me/student", {**hf_files, "README.md": b"old", "optimizer.pt": b"x" * 10})
    (first,) = ask("me/student")
    assert first["local"] is None and Path(first["path"]).name == old
    assert first["files"] == ["config.json", "model.safetensors", "preprocessor_config.json"]
    new = hub.add("me/student", {**hf_files, "config.json": hf_files["config.json"] + b"\n"})
    hub.revisions["me/student"]["v1"] = old
    hub.asked.clear()
    by_branch, by_tag, by_commit = ask("me/student", "me/student@v1", f"me/student@{old}")
    assert Path(by_branch["path"]).name == new and Path(by_branch["local"]).name == old
    assert Path(by_tag["path"]).name == Path(by_commit["path"]).name == old
    assert len([path for method, path, _ in hub.asked if method == "GET" and "safetensors" in path]) == 0
    hub.asked.clear()
    offline = ask("me/student", "me/student@v1", "me/student@v2", "me/other", HF_HUB_OFFLINE="1")
    assert [Path(answer["path"]).name for answer in offline[:2]] == [new, old]
    for answer in offline[2:]:
        assert "nor in the Hub's cache on this machine" in one_sentence(answer)
        assert "offline mode is on (HF_HUB_OFFLINE)" in answer["error"]
    assert hub.asked == []
    (unreachable,) = ask("me/other", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9/me/other could not be reached" in one_sentence(unreachable)
    (still_there,) = ask("me/student", HF_ENDPOINT="http://127.0.0.1:9")
    assert Path(still_there["path"]).name == new


def test_without_preprocessor_in_the_older_format_and_in_parts(hub, ask, hf_files) -> None:
    config = {"config.json": hf_files["config.json"]}
    hub.add("me/old", {**config, "pytorch_model.bin": b"weights", "tf_model.h5": b"x"})
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    parts = {"model-1.safetensors": b"1", "model-2.safetensors": b"2", "model.safetensors.index.json": index}
    hub.add("me/parts", {**config, **parts})
    old, whole = ask("me/old", "me/parts")
    assert old["files"] == ["config.json", "pytorch_model.bin"]
    assert whole["files"] == sorted(["config.json", *parts])
    again = ask("me/old", "me/parts", HF_HUB_OFFLINE="1")
    assert [answer["path"] for answer in again] == [old["path"], whole["path"]]


def test_a_model_that_transformers_5_saved_with_its_processor(hub, ask, hf_files) -> None:
    files = {
        name: content for name, content in hf_files.items() if name not in ("preprocessor_config.json", "README.md")
    }
    hub.add("me/ctc", {**files, "processor_config.json": b'{"feature_extractor": {"do_normalize": true}}'})
    (found,) = ask("me/ctc")
    assert found["files"] == ["config.json", "model.safetensors", "processor_config.json"]
    assert read_checkpoint(found["path"]).config.normalize_waveform


def test_what_cannot_be_had_is_said_in_one_sentence(hub, ask, hf_files) -> None:
    hub.add("me/private", hf_files)
    hub.private["me/private"] = "hf_secret"
    hub.add("me/gated", hf_files)
    hub.gated.add("me/gated")
    hub.add("me/empty", {"README.md": b"nothing"})
    hub.add("me/weightless", {"config.json": b"{}"})
    asked = ("me/private", "me/gated", "me/empty", "me/weightless", "microsoft/wavlm-base-pls")
    private, gated, empty, weightless, misspelt = map(one_sentence, ask(*asked))
    assert f"nor a public model at {hub.url}/me/private" in private and "HF_TOKEN=" in private
    assert gated.startswith(f"me/gated is gated: accept its terms at {hub.url}/me/gated and give your token")
    assert "me/empty holds no config.json" in empty and f"{hub.url}/me/empty/tree/main" in empty
    assert "me/weightless holds no pytorch_model.bin" in weightless
    assert misspelt.endswith("did you mean microsoft/wavlm-base-plus?")
    (wrong,) = ask("me/private", HF_TOKEN="hf_wrong")
    assert "nor a public model" in one_sentence(wrong) and "hf_wrong" not in wrong["error"]
    given, revision = ask("me/private", "me/private@v9", HF_TOKEN="hf_secret")
    assert "model.safetensors" in given["files"]
    assert "me/private has no revision 'v9'" in one_sentence(revision)


def test_an_interrupted_download_is_taken_up_again(hub, ask, hf_files) -> None:
    large = {**hf_files, "model.safetensors": bytes(range(256)) * 90_000}  # huggingface_hub reads 10 MiB at a time
    hub.add("me/large", large)
    hub.cuts = [11_000_000]
    (answer,) = ask("me/large", HF_HUB_DISABLE_XET="1")
    assert (Path(answer["path"]) / "model.safetensors").read_bytes() == large["model.safetensors"]
    assert hub.asked[-1][2] == "bytes=10485760-"


def test_what_was_downloaded_is_a_model(hub, ask, hf_files) -> None:
    from robustdistiller.upstream import load_encoder

    hub.add("me/student", hf_files)
    (answer,) = ask("me/student")
    assert load_encoder(answer["path"]).config.num_layers == 1

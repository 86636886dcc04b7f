"""What a name means, and what is said where it means nothing."""

from __future__ import annotations

import pytest

from robustdistiller.upstream.pretrained.names import ModelName
from robustdistiller.upstream.pretrained.registry import MODELS


@pytest.mark.parametrize(
    ("text", "kind", "value", "revision", "short", "label"),
    [
        ("robustdistiller_wavlm", "registered", "robustdistiller_wavlm", None, "robustdistiller_wavlm", None),
        ("microsoft/wavlm-base-plus", "hub", "microsoft/wavlm-base-plus", None, None, "wavlm-base-plus"),
        ("me/v1.5@main", "hub", "me/v1.5", "main", "me/v1.5@main", "me/v1.5@main"),
        ("me/model@refs/pr/7", "hub", "me/model", "refs/pr/7", "me/model@refs/pr/7", "me/model@refs/pr/7"),
        ("mine/student.ckpt", "path", "mine/student.ckpt", None, "student.ckpt", "mine"),
        ("/a/b/student_best.ckpt", "path", "/a/b/student_best.ckpt", None, "student_best.ckpt", "b_best"),
        ("student.ckpt", "path", "student.ckpt", None, None, "student"),
        ("student.v2.ckpt", "path", "student.v2.ckpt", None, "student.v2.ckpt", "student.v2"),
        ("exp/a/b", "path", "exp/a/b", None, "b", "b"),
        ("me/a--b", "path", "me/a--b", None, "a--b", "a--b"),  # no name that the Hub allows
        ("./student", "path", "student", None, "student", "student"),
        ("https://a.org/x/s.ckpt", "url", "https://a.org/x/s.ckpt", None, "s.ckpt", "s"),
        ("https://a.org/s.safetensors?download=true", "url", "https://a.org/s.safetensors", None, "s.safetensors", "s"),
        ("https://a.org/s.pt?v=2&download=true#top", "url", "https://a.org/s.pt?v=2", None, "s.pt", "s"),
        ("https://huggingface.co/me/model", "hub", "me/model", None, "me/model", "model"),
        ("https://huggingface.co/me/model/tree/v1", "hub", "me/model", "v1", "me/model@v1", "me/model@v1"),
        (
            *("https://huggingface.co/me/model/resolve/main/model.safetensors?download=true", "hub", "me/model", None),
            *("me/model", "model"),
        ),
        (
            *("https://huggingface.co/me/m/resolve/main/a.ckpt?download=true", "url"),
            *("https://huggingface.co/me/m/resolve/main/a.ckpt", None, "a.ckpt", "a"),
        ),
        (
            *("https://huggingface.co/me/blob/blob/main/x/a.ckpt", "url"),  # what the browser shows
            *("https://huggingface.co/me/blob/resolve/main/x/a.ckpt", None, "a.ckpt", "a"),
        ),
        (
            *("https://huggingface.co/me/m/raw/v1/a%20b.ckpt", "url"),
            *("https://huggingface.co/me/m/resolve/v1/a%20b.ckpt", None, "a b.ckpt", "a b"),
        ),
        ("https://huggingface.co/me", "url", "https://huggingface.co/me", None, "me", "me"),
        ("https://a.org/me/m/blob/main/a.ckpt", "url", "https://a.org/me/m/blob/main/a.ckpt", None, "a.ckpt", "a"),
    ],
)
def test_every_kind_of_name(text, kind, value, revision, short, label, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = ModelName.parse(text)
    assert (name.kind, name.value, name.revision) == (kind, value, revision)
    assert name.short == (short or text) and name.label == (label or text)


def test_what_exists_is_a_path(tmp_path, monkeypatch, home) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("microsoft/wavlm-base", "v1.5", "a@b", "home/models"):
        (tmp_path / folder).mkdir(parents=True)
        assert ModelName.parse(folder) == ModelName("path", folder)
    assert ModelName.parse("v1.5").label == "v1.5"  # a folder with a dot in its name is a folder
    assert ModelName.parse("~/models").value == str(home / "models")
    assert ModelName.parse(tmp_path / "v1.5").kind == "path"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model '': found nothing, expected a path, a URL, org/name"),
        ("dphuber", "found neither a file nor a known name, .*; did you mean dphubert?"),
        ("dphubert@main", "found a revision, but dphubert is one released file; expected dphubert"),
        ("me/model@", "found nothing behind the @, expected a revision such as me/model@main"),
        ("s3://bucket/a.ckpt", "found the scheme 's3', expected an http or https URL"),
    ],
)
def test_what_is_no_name_is_said_in_one_sentence(text, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        ModelName.parse(text)
    assert "\n" not in str(error.value)
    lenient = ModelName.parse(text, strict=False) if "@" not in text else None
    assert lenient in (None, ModelName("unknown", text))


@pytest.mark.parametrize("text", ["x" * 5000, "a/" * 3000, "a\0b", "~nobody-of-that-name/x"])
def test_text_that_can_be_no_path_does_no_harm(text) -> None:
    assert ModelName.parse(text, strict=False).kind in ("unknown", "path")


def test_the_registry_is_consistent() -> None:
    for name, model in MODELS.items():
        assert name.replace("/", "").replace("-", "").isidentifier()
        assert ("/" in name) == (model.repository == name)
        assert model.sha256 is None or len(model.sha256) == 64
        assert bool(model.url) == (not name.startswith("robustdistiller_mini"))

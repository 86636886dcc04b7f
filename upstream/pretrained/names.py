"""How a model is named: one string for a path, a URL, a model on the Hugging Face Hub, or a registered name."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from robustdistiller.common import names
from robustdistiller.upstream.pretrained.registry import MODELS

#: Endings of files that hold weights. What ends so is a file, and no name on the Hub.
FILE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".onnx", ".pt2", ".npz", ".zip", ".tar", ".h5")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
INPUT_FILES = ("processor_config.json", "preprocessor_config.json")  # transformers 5 nests the second in the first
FILES_OF_A_RUN = ("student", "student_best")  # what every run of distill calls its students
CTRANSLATE2_FILE = "model.bin"
_EXPECTED = "a path, a URL, org/name[@revision] on the Hugging Face Hub, or a registered name"
_HUB_ID = re.compile(r"(?=.{,96}$)(?!.*(--|\.\.))\w[\w.-]*/\w([\w.-]*\w)?", re.ASCII)  # what the Hub allows
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


@dataclass(frozen=True)
class ModelName:
    """A model's name, taken apart.

    Attributes:
        kind: ``"path"``, ``"url"``, ``"hub"`` or ``"registered"``; ``"unknown"`` where parsing was lenient.
        value: the path with ``~`` expanded, the URL, ``org/name``, or the registered name.
        revision: branch, tag or commit on the Hub; None for its main branch.

    Example:
        >>> ModelName.parse("microsoft/wavlm-base-plus@refs/pr/3")
        ModelName(kind='hub', value='microsoft/wavlm-base-plus', revision='refs/pr/3')
        >>> ModelName.parse("dpwavlm").kind, ModelName.parse("exp/student.ckpt").kind
        ('registered', 'path')
        >>> ModelName.parse("robustdistiller_wavml")
        Traceback (most recent call last):
        ValueError: model 'robustdistiller_wavml': found neither a file nor a known name, expected a path, a URL, \
org/name[@revision] on the Hugging Face Hub, or a registered name; did you mean robustdistiller_wavlm?
    """

    kind: str
    value: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | Path, strict: bool = True) -> ModelName:
        """Take a name apart. What exists on the disk is a path, whatever else it could be.

        Args:
            text: the name.
            strict: refuse a word that means nothing here; it may mean something to an upstream of s3prl's own.

        Raises:
            ValueError: the text is no name, in one sentence.
        """
        text = str(text)
        if "://" in text:
            return cls._of_url(text, strict)
        path = existing_path(text)
        if path is not None:
            return cls("path", str(path))
        if text in MODELS and "/" not in text:
            return cls("registered", text)
        base, at, revision = text.partition("@")
        if at and base in MODELS and "/" not in base:
            raise ValueError(f"model {text!r}: found a revision, but {base} is one released file; expected {base}")
        if _HUB_ID.fullmatch(base) and not base.endswith(FILE_SUFFIXES):
            if at and not revision:
                raise ValueError(f"model {text!r}: found nothing behind the @, expected a revision such as {base}@main")
            return cls("hub", base, revision or None)
        if "/" in text or "\\" in text or text.startswith(("~", ".")) or text.endswith(FILE_SUFFIXES):
            return cls("path", str(expanded(text)))
        if not strict:
            return cls("unknown", text)
        found = "found neither a file nor a known name" if text else "found nothing"
        raise ValueError(f"model {text!r}: {found}, expected {_EXPECTED}{nearest(text)}")

    @classmethod
    def _of_url(cls, text: str, strict: bool) -> ModelName:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            if not strict:
                return cls("unknown", text)
            raise ValueError(f"model {text!r}: found the scheme {parts.scheme!r}, expected an http or https URL")
        if parts.hostname in _HUB_HOSTS:  # a model's page, or its weights, which need the files beside them
            org, name, *rest = [*unquote(parts.path).strip("/").split("/"), ""]
            rest = [part for part in rest if part]
            whole = not rest or (rest[0] == "tree" and len(rest) == 2)
            weights = len(rest) == 3 and rest[0] in ("resolve", "blob", "raw") and rest[2] in WEIGHT_FILES
            if _HUB_ID.fullmatch(f"{org}/{name}") and (whole or weights):
                return cls("hub", f"{org}/{name}", rest[1] if rest and rest[1] != "main" else None)
            if rest and rest[0] in ("blob", "raw"):  # a file's page, or of a large file what stands for it
                parts = parts._replace(path=parts.path.replace(f"/{name}/{rest[0]}/", f"/{name}/resolve/", 1))
        query = "&".join(part for part in parts.query.split("&") if part and part != "download=true")
        return cls("url", urlunsplit((*parts[:3], query, "")))

    def __str__(self) -> str:
        return f"{self.value}@{self.revision}" if self.revision else self.value

    @property
    def short(self) -> str:
        """What records keep: a file's or folder's name, otherwise the name itself.

        Example:
            >>> ModelName.parse("https://example.org/a/b.ckpt?download=true").short
            'b.ckpt'
        """
        if self.kind == "path":
            return Path(self.value).name
        return unquote(urlsplit(self.value).path).rpartition("/")[2] if self.kind == "url" else str(self)

    @classmethod
    def short_of(cls, text: str | Path | None) -> str:
        """:attr:`short` of what an upstream's ``-k`` was given; empty where it was given nothing."""
        return cls.parse(text, strict=False).short if text else ""

    @property
    def label(self) -> str:
        """The name for people, in tables.

        A file that a training run named is called after the run's folder: its name is that of every run's file.

        Example:
            >>> ModelName.parse("exp/student.v2.ckpt").label, ModelName.parse("microsoft/wavlm-large").label
            ('student.v2', 'wavlm-large')
            >>> ModelName.parse("exp/robust/student.ckpt").label, ModelName.parse("exp/robust/student_best.ckpt").label
            ('robust', 'robust_best')
        """
        name = self.short.rpartition("/")[2] if self.kind == "hub" and not self.revision else self.short
        is_file = self.kind in ("path", "url") and not Path(self.value).is_dir()
        stem = Path(name).stem if is_file else name
        folder = Path(self.value).parent.name if self.kind == "path" and is_file else ""
        return stem.replace("student", folder, 1) if folder and stem in FILES_OF_A_RUN else stem


def existing_path(text: str | Path) -> Path | None:
    """The path, with ``~`` expanded, if there is something; None for whatever else the text is.

    Example:
        >>> existing_path("https://example.org/a.ckpt")
    """
    path = expanded(text)
    with contextlib.suppress(OSError, ValueError):  # too long for a path, or with a zero byte in it
        if str(text) and path.exists():
            return path
    return None


def nearest(text: str) -> str:
    """A hint at the registered name that is most like ``text``; empty where none is.

    Example:
        >>> nearest("microsoft/wavlm-base-pls")
        '; did you mean microsoft/wavlm-base-plus?'
    """
    near = [] if text in MODELS else names.nearest(text, MODELS, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def expanded(text: str | Path) -> Path:
    """``text`` as a path, with ``~`` expanded where there is such a home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)

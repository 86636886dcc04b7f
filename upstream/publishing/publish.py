"""Publishing a student: a folder, or a repository on the Hugging Face Hub, that ``AutoModel`` loads."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.checkpoints.formats.base import Card, Exported
from robustdistiller.upstream.pretrained.hub import writing_explained
from robustdistiller.upstream.pretrained.names import ModelName, expanded


def publish(
    source: str | Path,
    to: str | Path,
    results: str = "",
    license_: str = "",
    *,
    stock: bool = False,
    private: bool = False,
    overwrite: bool = False,
    api: Any = None,
) -> Exported:
    """Write a checkpoint for people who have PyTorch and transformers only, with a model card.

    Any encoder loads from it by ``AutoModel.from_pretrained(PLACE, trust_remote_code=True)``: one file of code lies
    beside the weights. :func:`robustdistiller.load` and the s3prl entries read it, too, and run nothing in it.

    Args:
        source: a checkpoint of any readable format.
        to: a folder, or ``org/name`` for the Hub, see :func:`repository_of`.
        results: Markdown for the model card's section of results.
        license_: licence to note, such as ``"cc-by-4.0"``.
        stock: write it for transformers' own class, which needs no code beside the weights, if one has this shape.
        private: make a new repository on the Hub that only its owners see.
        overwrite: replace what this package wrote there before.
        api: a `huggingface_hub.HfApi`; default: a new one.

    Returns:
        What was written, with the address of the commit if it was uploaded.

    Raises:
        FileExistsError: something is there, and ``overwrite`` is false; it is a folder that this package did not write,
            which is never replaced; or a public repository, and ``private`` is true.
        NotExportable: with ``stock``, transformers has no class of this shape.
        PermissionError: the Hub does not let its user write there; the message says what is missing.
        ConnectionError: the Hub could not be reached, or did not take the files.
        ValueError: ``to`` is no place to write to, or ``source`` is unreadable.

    Example:
        >>> import tempfile
        >>> from robustdistiller.upstream import mini_teacher
        >>> with tempfile.TemporaryDirectory() as place:
        ...     exported = publish(mini_teacher(), f"{place}/mini")
        ...     sorted(file.name for file in exported.path.iterdir())
        ['README.md', 'config.json', 'model.safetensors', 'modeling_robustdistiller.py', 'preprocessor_config.json']
    """
    kind, repository = "huggingface" if stock else "published", repository_of(to)
    if repository is None:
        if private:
            raise ValueError(f"{to} is a folder; only a repository on the Hub can be private")
        return export_checkpoint(source, to, kind, overwrite=overwrite, card=Card(results), license_=license_)
    with tempfile.TemporaryDirectory() as place:
        folder, card = Path(place) / repository.rpartition("/")[2], Card(results, repository)
        exported = export_checkpoint(source, folder, kind, card=card, license_=license_)
        with writing_explained(repository):
            where = _upload(folder, repository, private, overwrite, api)
    return dataclasses.replace(exported, commit=where)


def repository_of(to: str | Path) -> str | None:
    """The repository on the Hub that ``to`` names; None for a folder.

    ``org/name`` is a folder where there is a folder ``org``, or if it is written ``./org/name``. An address of the Hub,
    ``https://huggingface.co/org/name``, is never one.

    Raises:
        ValueError: it is another URL, or a revision is given.

    Example:
        >>> repository_of("me/student"), repository_of("./me/student"), repository_of("student")
        ('me/student', None, None)
    """
    name = ModelName.parse(to, strict=False)
    if name.kind == "url":
        raise ValueError(f"{to} is no address on the Hub; expected a folder or org/name")
    if name.kind != "hub" or (expanded(to).parent.is_dir() and "://" not in str(to)):
        return None
    if name.revision:
        raise ValueError(f"{to} names a revision; expected {name.value}, whose main branch is written")
    return name.value


def _upload(folder: Path, repository: str, private: bool, overwrite: bool, api: Any) -> str:
    """One commit of the files in ``folder``; gives its address. The history keeps what was there."""
    from huggingface_hub import HfApi  # takes a while to import

    api = api or HfApi(library_name="robustdistiller")
    api.create_repo(repository, private=private or None, exist_ok=True)
    if private and api.model_info(repository).private is False:
        raise FileExistsError(
            f"{repository} is there already and public; make it private in its settings on the Hub, choose another "
            "name, or leave --private out"
        )
    there = sorted(set(api.list_repo_files(repository)) - {".gitattributes"})
    if there and not overwrite:
        raise FileExistsError(
            f"{repository} holds {len(there)} files already, such as {there[0]}; choose another name, or replace those "
            "of the same names with --overwrite"
        )
    commit = api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Published by robustdistiller")
    return str(commit.commit_url)

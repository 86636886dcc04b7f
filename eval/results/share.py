"""Records shared with others: copied whole, with their results of single items, to or from a folder or a Hub dataset.

Files keep their bytes, so that their digests go on telling whether anybody changed them. A file that lies there with
other content is never replaced; it is said, and the copy goes on with the rest. Where pulled records came from is noted
in ``origins.json`` beside them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_bytes, write_text
from robustdistiller.eval.results.files import read_each, record_path
from robustdistiller.eval.results.item_scores import read_outcomes
from robustdistiller.eval.results.record import RecordError
from robustdistiller.upstream.pretrained.hub import writing_explained

HUB = "hf://datasets/"
ORIGINS = "origins.json"
_FOLDER = "records"


@dataclass
class Shared:
    """What became of each record of a copy.

    Attributes:
        copied: names of the records that were copied.
        there: names of those that were there already, byte by byte.
        refused: a sentence for each that was not copied.
        where: what they were copied to; of a Hub dataset the address of the commit or pull request.
    """

    copied: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    where: str = ""


def push(folders: Iterable[Path | str], to: Path | str, *, pull_request: bool = False, api: Any = None) -> Shared:
    """Copy finished records to where others find them.

    Args:
        folders: folders of sweeps, runs or records.
        to: a folder, or ``hf://datasets/ORG/NAME``, which is made where it is not there.
        pull_request: propose the files to a Hub dataset that is not one's own.
        api: a `huggingface_hub.HfApi`; default: a new one.

    Raises:
        FileNotFoundError: no such folder, or none with records.
        ValueError: `to` is an address, but not of a Hub dataset; or a pull request to a folder.
        PermissionError: the Hub does not let its user write there; the message says what is missing.
        ConnectionError: the Hub could not be reached, or did not take the files.
    """
    found, hub = Shared(where=str(to)), _is_dataset(to)
    if pull_request and not hub:
        raise ValueError(f"a pull request is made to a dataset, {HUB}ORG/NAME, found the folder {to}")
    name, revision = _dataset(str(to)) if hub else ("", None)
    folders = list(folders)
    bundles = _finished(folders, found, ", ".join(map(str, folders)))
    if not hub or not bundles:  # no empty dataset is made
        _copy(bundles, Path(to), found)
        return found
    with writing_explained(name):
        api = api or _hub()
        api.create_repo(name, repo_type="dataset", exist_ok=True)
        commit = api.repo_info(name, repo_type="dataset", revision=revision).sha
        names = [name for files in bundles for name in files]
        with tempfile.TemporaryDirectory() as folder:
            there = api.snapshot_download(name, repo_type="dataset", revision=commit, allow_patterns=names)
            new = _copy(bundles, Path(folder), found, Path(there))
            if new:
                from huggingface_hub import CommitOperationAdd

                answer = api.create_commit(
                    name,
                    [CommitOperationAdd(path, data) for path, data in new.items()],
                    commit_message=f"{len(found.copied)} records",
                    repo_type="dataset",
                    revision=revision,
                    create_pr=pull_request,
                    parent_commit=commit,  # whoever wrote in between is not overwritten
                )
                found.where = getattr(answer, "pr_url", None) or getattr(answer, "commit_url", found.where)
    return found


def pull(source: Path | str, into: Path | str, *, api: Any = None) -> Shared:
    """Copy records of others here. Every file is checked against its digest, and where it came from is noted.

    Args:
        source: a folder, or ``hf://datasets/ORG/NAME``, with ``@REVISION`` behind it for a state of the past.
        into: a folder; records go below its ``records``.
        api: a `huggingface_hub.HfApi`; default: a new one.

    Raises:
        FileNotFoundError: no such folder, or it has no records.
        ValueError: `source` or `into` is an address, but not of a Hub dataset that can be read from.
    """
    if "://" in str(into):
        raise ValueError(f"records are pulled into a folder, found {into}; results push writes to a dataset")
    found = Shared(where=str(into))
    origin = {"from": str(source)}
    folder = Path(source)
    if _is_dataset(source):
        name, revision = _dataset(str(source))
        api = api or _hub()
        commit = api.repo_info(name, repo_type="dataset", revision=revision).sha
        folder = Path(
            api.snapshot_download(name, repo_type="dataset", revision=commit, allow_patterns=[f"{_FOLDER}/*"])
        )
        origin = {"from": f"{HUB}{name}", "commit": commit}
    origin["pulled_utc"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _copy(_finished([folder], found, str(source)), Path(into), found)
    if found.copied:
        path = Path(into) / _FOLDER / ORIGINS
        write_text(path, json.dumps({**read_origins(into), **dict.fromkeys(found.copied, origin)}, indent=1) + "\n")
    return found


def read_origins(folder: Path | str) -> dict[str, dict[str, str]]:
    """Where the pulled records of a folder came from, by their names below it."""
    path = Path(folder) / _FOLDER / ORIGINS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _hub() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="robustdistiller")


def _is_dataset(place: Path | str) -> bool:
    """Whether it is the address of a Hub dataset; any other address would become a folder of that name."""
    if "://" in str(place) and not str(place).startswith(HUB):
        raise ValueError(f"{place} is neither a folder nor a dataset on the Hub; expected {HUB}ORG/NAME")
    return str(place).startswith(HUB)


def _dataset(address: str) -> tuple[str, str | None]:
    name, _, revision = address.removeprefix(HUB).strip("/").partition("@")
    if name.count("/") != 1:
        raise ValueError(f"{address} names no dataset; expected {HUB}ORG/NAME, with @REVISION behind it or without")
    return name, revision or None


def _finished(folders: Iterable[Path | str], found: Shared, said: str) -> list[dict[str, bytes]]:
    """Name to content of the files of each finished record, checked; the record's comes after that of its items."""
    bundles: list[dict[str, bytes]] = []
    for path, record in [pair for folder in folders for pair in read_each(folder)]:
        try:
            if isinstance(record, RecordError):
                raise record
            read_outcomes(path, record)  # checks them against the record
        except RecordError as error:
            found.refused.append(str(error))
            continue
        if not record.finished:
            found.refused.append(f"{path} is not finished: {record.trouble}")
            continue
        names = [record.outcomes.file] if record.outcomes else []
        place = record_path(_FOLDER, record)
        files = {place.with_name(name).as_posix(): path.with_name(name).read_bytes() for name in names}
        bundles.append({**files, place.as_posix(): path.read_bytes()})
    if not bundles and not found.refused:
        raise FileNotFoundError(f"there are no records in {said}")
    return bundles


def _copy(bundles: Iterable[dict[str, bytes]], to: Path, found: Shared, there: Path | None = None) -> dict[str, bytes]:
    """Write what is new, and give it back; a record and its items go together or not at all."""
    there, written = there or to, {}
    for files in bundles:
        *_, record = files
        present = {name: (there / name).read_bytes() for name in files if (there / name).is_file()}
        present |= {name: written[name] for name in files if name in written}
        new = {name: data for name, data in files.items() if name not in present}
        if other := [name for name, data in present.items() if data != files[name]]:
            found.refused.append(
                f"{record} is not copied: {', '.join(other)} lies there with other content, another run of the same "
                "cell; move one of the two away to choose"
            )
            continue
        for name, data in new.items():
            write_bytes(to / name, data)
        written |= new
        (found.copied if new else found.there).append(record)
    return written

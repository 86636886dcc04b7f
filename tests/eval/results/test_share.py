"""Sharing records: copied whole, checked, never over others, through folders and a stand-in of the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results import share
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.share import ORIGINS, pull, push, read_origins
from tests.eval.report import boards

ADDRESS = "hf://datasets/org/results"


class Hub:
    """A dataset on the Hub, kept in a folder; the methods of `huggingface_hub.HfApi` that sharing needs."""

    def __init__(self, root: Path) -> None:
        self.root, self.head, self.commits, self.requests = root, "none", 0, 0

    def create_repo(self, name: str, repo_type: str, exist_ok: bool) -> None:
        assert (name, repo_type, exist_ok) == ("org/results", "dataset", True)
        if self.head == "none":
            self._commit([])

    def repo_info(self, name: str, repo_type: str, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(sha=revision or self.head)

    def snapshot_download(self, name: str, repo_type: str, revision: str, allow_patterns: list[str]) -> str:
        return str(self.root / revision)

    def create_commit(self, name, operations, *, commit_message, repo_type, revision, create_pr, parent_commit):
        assert parent_commit == self.head, "somebody wrote in between"
        if create_pr:
            self.requests += 1
            return SimpleNamespace(pr_url=f"https://hub/{name}/discussions/{self.requests}")
        self._commit(operations)
        return SimpleNamespace(pr_url=None, commit_url=f"https://hub/{name}/commit/{self.head}")

    def _commit(self, operations) -> None:
        self.commits += 1
        before, self.head = self.root / self.head, f"sha{self.commits}"
        before.mkdir(parents=True, exist_ok=True)
        shutil.copytree(before, self.root / self.head)
        for one in operations:
            path = self.root / self.head / one.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.path_or_fileobj)


@pytest.fixture
def sweep(tmp_path) -> Path:
    boards.write_answers(tmp_path / "sweep" / "records", "student")
    return tmp_path / "sweep"


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_records_and_their_items_arrive_byte_by_byte(sweep, tmp_path):
    found = push([sweep], tmp_path / "shared")
    assert len(found.copied) == 4 and not found.refused and not found.there
    assert contents(tmp_path / "shared") == contents(sweep)
    again = push([sweep], tmp_path / "shared")
    assert len(again.there) == 4 and not again.copied and not again.refused


def test_what_was_pulled_makes_the_same_board_and_says_where_it_is_from(sweep, tmp_path):
    push([sweep], tmp_path / "shared")
    found = pull(tmp_path / "shared", tmp_path / "mine")
    mine, theirs = (leaderboard([folder], published=False).frame for folder in (tmp_path / "mine", sweep))
    assert mine.equals(theirs)
    origins = read_origins(tmp_path / "mine")
    assert set(origins) == set(found.copied)
    assert {one["from"] for one in origins.values()} == {str(tmp_path / "shared")}
    assert f"4 records were pulled from {tmp_path / 'shared'}" in leaderboard([tmp_path / "mine"]).notes


def test_another_run_of_a_cell_is_never_overwritten(sweep, tmp_path):
    push([sweep], tmp_path / "shared")
    before = contents(tmp_path / "shared")
    (other,) = boards.write_answers(tmp_path / "other", "student", conditions={"clean": 0.8})
    found = push([tmp_path / "other"], tmp_path / "shared")
    assert not found.copied and contents(tmp_path / "shared") == before
    (refused,) = found.refused
    assert "lies there with other content, another run of the same cell" in refused and other.name in refused


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_files_that_were_changed_are_not_pulled(sweep, tmp_path, suffix):
    push([sweep], tmp_path / "shared")
    path = next((tmp_path / "shared").rglob(f"*{suffix}"))
    if suffix == ".json":
        path.write_text(path.read_text().replace('"label": "student"', '"label": "mine"'))
    else:
        path.write_bytes(path.read_bytes()[:-1])
    found = pull(tmp_path / "shared", tmp_path / "mine")
    assert len(found.copied) == 3 and len(found.refused) == 1 and "changed after it was written" in found.refused[0]
    assert path.name not in {one.name for one in (tmp_path / "mine").rglob("*") if one.parent.name in str(path)}


def test_of_two_runs_of_a_cell_one_is_pushed(tmp_path):
    for day, name in enumerate(("one", "two"), 1):
        changes = {"conditions": {"clean": day / 3}, "start_utc": f"2026-01-0{day}T00:00:00+00:00"}
        boards.write_answers(tmp_path / name, "student", **changes)
    hub, folders = Hub(tmp_path / "hub"), [tmp_path / "one", tmp_path / "two"]
    for found in (push(folders, tmp_path / "shared"), push(folders, ADDRESS, api=hub)):
        assert len(found.copied) == 1 and "another run of the same cell" in found.refused[0]
    assert contents(tmp_path / "hub" / hub.head) == contents(tmp_path / "shared")
    assert len(push([tmp_path / "one"] * 2, ADDRESS, api=Hub(tmp_path / "other")).there) == 1


def test_only_finished_records_are_pushed(sweep, tmp_path):
    write_record(sweep / "records", boards.record("student", "noise:snr_db=5", status="failed", reason="out of memory"))
    found = push([sweep], tmp_path / "shared")
    assert len(found.copied) == 4 and "is not finished: failed, out of memory" in found.refused[0]


def test_a_dataset_on_the_hub(sweep, tmp_path):
    hub = Hub(tmp_path / "hub")
    found = push([sweep], ADDRESS, api=hub)
    assert len(found.copied) == 4 and found.where == "https://hub/org/results/commit/sha2"
    assert contents(tmp_path / "hub" / "sha2") == contents(sweep)
    assert len(push([sweep], ADDRESS, api=hub).there) == 4 and hub.commits == 2  # nothing new: no commit
    boards.write_answers(tmp_path / "more", "teacher")
    assert push([tmp_path / "more"], ADDRESS, pull_request=True, api=hub).where.endswith("/discussions/1")
    push([tmp_path / "more"], ADDRESS, api=hub)
    pull(f"{ADDRESS}@sha2", tmp_path / "old", api=hub)
    pull(ADDRESS, tmp_path / "new", api=hub)
    assert [len(leaderboard([tmp_path / name], published=False).rows) for name in ("old", "new")] == [1, 2]
    origin = next(iter(read_origins(tmp_path / "old").values()))
    assert (origin["from"], origin["commit"]) == (ADDRESS, "sha2")
    (clash,) = boards.write_answers(tmp_path / "clash", "student", conditions={"clean": 0.1})
    assert clash.name in push([tmp_path / "clash"], ADDRESS, api=hub).refused[0] and hub.head == "sha3"


@pytest.mark.parametrize("address", ["hf://org/results", "hf://models/org/results", "https://hub/datasets/org/results"])
def test_an_address_of_nothing_that_can_be_written_makes_no_folder(sweep, tmp_path, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    for copy in (lambda: push([sweep], address), lambda: pull(address, "mine")):
        with pytest.raises(ValueError, match=r"is neither a folder nor a dataset .*expected hf://datasets/ORG/NAME"):
            copy()
    with pytest.raises(ValueError, match="records are pulled into a folder"):
        pull(sweep, address)
    assert contents(tmp_path) == before


def test_a_pull_request_to_a_folder_is_refused(sweep, tmp_path):
    with pytest.raises(ValueError, match="a pull request is made to a dataset"):
        push([sweep], tmp_path / "shared", pull_request=True)
    assert not (tmp_path / "shared").exists()


def test_no_dataset_is_made_for_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    hub = Hub(tmp_path / "hub")
    with pytest.raises(FileNotFoundError, match=f"there are no records in {tmp_path / 'empty'}"):
        push([tmp_path / "empty"], ADDRESS, api=hub)
    write_record(tmp_path / "bad", boards.record("student", status="failed", reason="out of memory"))
    assert push([tmp_path / "bad"], ADDRESS, api=hub).refused and hub.head == "none"


def test_the_command(sweep, tmp_path, monkeypatch):
    def run(*arguments: object):
        return CliRunner().invoke(app, ["results", *map(str, arguments)], env={"COLUMNS": "200"})

    result = run("push", sweep, tmp_path / "shared")
    assert result.exit_code == 0 and "4 copied to" in result.output
    result = run("pull", tmp_path / "shared", tmp_path / "mine")
    assert result.exit_code == 0 and (tmp_path / "mine" / "records" / ORIGINS).is_file()
    next((tmp_path / "shared").rglob("*.npz")).unlink()
    result = run("pull", tmp_path / "shared", tmp_path / "other")
    assert result.exit_code == 1 and "1 records were refused" in result.stderr
    for arguments, message in (
        (["push", sweep], "expected where from and where to"),
        (["pull", tmp_path / "nowhere", tmp_path], "no folder of records"),
        (["push", sweep, "hf://datasets/name"], "names no dataset; expected hf://datasets/ORG/NAME"),
        (["pull", tmp_path / "shared", tmp_path / "x", "--pull-request"], "--pull-request is for push"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.stderr, arguments
    monkeypatch.setattr(share, "_hub", lambda: Hub(tmp_path / "hub"))
    assert run("push", sweep, ADDRESS).exit_code == 0
    assert json.loads((tmp_path / "mine" / "records" / ORIGINS).read_text())


def test_without_a_token_it_is_said_how_to_get_one(sweep) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    class Closed:
        def create_repo(self, *_, **__):
            raise LocalTokenNotFoundError("Token is required")

    with pytest.raises(PermissionError, match=r"org/results is not written: no token was found; .*hf auth login"):
        push([sweep], ADDRESS, api=Closed())

"""Profiles: what is counted and timed, how it is stored, and that the leaderboard shows it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.cli.profile import show
from robustdistiller.common.errors import RunFailed
from robustdistiller.eval.cost import ProfileSettings, profile_upstream, read_profiles, write_profile
from robustdistiller.eval.cost.counting import count_parameters
from robustdistiller.eval.cost.protocol import AUDIO_S, UTTERANCES, utterance
from robustdistiller.eval.cost.record import Profile
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.page.html import page_data
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import RecordError
from robustdistiller.upstream import EncoderConfig, checkpoint_digest, read_checkpoint
from robustdistiller.upstream.model.cost import encoder_macs
from robustdistiller.upstream.s3prl.entries import UpstreamExpert
from tests.records import example_record

pytestmark = pytest.mark.usefixtures("bridge")


def run(*arguments):
    return CliRunner().invoke(app, ["profile", *arguments], env={"COLUMNS": "200"})


@pytest.mark.slow
def test_superbs_utterances_and_the_published_count():
    """The challenge's profiler printed 1 669 156 022 848 MACs for HuBERT Base on these utterances."""
    assert len(UTTERANCES) == 32 and list(UTTERANCES.values()) == sorted(UTTERANCES.values())
    assert (min(UTTERANCES.values()), max(UTTERANCES.values())) == (20560, 326000)  # it prints 1.28 to 20.38 s
    counted = sum(encoder_macs(EncoderConfig(), samples / 16000) for samples in UTTERANCES.values())
    assert counted == pytest.approx(1_669_156_022_848, rel=0.003)


def test_student_from_the_command_line(toy_student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some = dict(list(UTTERANCES.items())[::8])
    monkeypatch.setattr("robustdistiller.eval.cost.counting.UTTERANCES", some)  # whose MACs are counted
    options = ["-k", str(toy_student), "--durations", "2,0.5", "--repeats", "2", "--threads", "1", "--label", "toy"]
    result = run("robustdistiller_local", *options, "--device", "cpu")
    assert result.exit_code == 0, result.output
    ((path, found),) = read_profiles([tmp_path / "records"]).items()
    assert path.parent.name == checkpoint_digest(toy_student)[:12]
    assert f"Written: {path.relative_to(tmp_path)}" in result.output
    checkpoint = read_checkpoint(toy_student)
    heads = sum(w.numel() for name, w in checkpoint.state_dict.items() if name.startswith("heads."))
    stored = sum(w.numel() for w in checkpoint.build().parameters())
    assert found.parameters == {"stored": stored, "used": stored, "used_without_heads": stored - heads} and heads > 0
    superb = found.macs["superb"]
    samples = some.values()
    plain = sum(encoder_macs(checkpoint.config, n / 16000, heads=False) for n in samples)
    assert superb["without_heads"] == pytest.approx(plain, rel=0.01) and superb["without_heads"] < superb["macs"]
    assert [one["duration_s"] for one in found.macs["lengths"]] == [0.5, 2.0]
    assert [(one["what"], len(one["seconds"])) for one in found.runs] == [("0.5 s", 2), ("2 s", 2), ("superb", 1)]
    for one in found.runs:
        assert one["real_time_factor"] == pytest.approx(np.median(one["seconds"]) / one["audio_s"])
        assert one["peak_memory_bytes"] > 50e6 and one["threads"] == 1
    assert found.runs[-1]["audio_s"] == AUDIO_S and found.machine["versions"]["torch"]
    for words in ("toy: size and work", "MACs of SUPERB's 4 utterances", "not counted: norms", "0.5 s"):
        assert words in result.output
    console = Console(width=200, record=True)
    show(dataclasses.replace(found, runs=[{**found.runs[0], "seconds": [1.0, 2.0]}]), console)
    assert "1.500" in console.export_text()

    record = example_record(
        upstream="robustdistiller_local",
        label="student",
        checkpoint_digest=checkpoint_digest(toy_student),
        checkpoint_digest_of="file",
    )
    write_record(tmp_path / "records", record)
    write_record(tmp_path / "records", dataclasses.replace(record, checkpoint_digest="cd" * 32, label="other"))
    board = leaderboard([tmp_path / "records"], published=False)
    assert {row.name: row.macs_g for row in board.rows} == {"student": superb["macs"] / 1e9, "other": None}
    assert [row["macs"] for row in page_data(board)["rows"] if row["name"] == "student"] == [superb["macs"] / 1e9]


def test_an_upstream_of_s3prl_step_by_step(tmp_path):
    settings = ProfileSettings("fbank", durations_s=(1.0,), repeats=1, threads=(1,))
    said: list[str] = []
    found = profile_upstream(settings, said.append)
    assert said == ["counting parameters and MACs", "timing on cpu, 1 threads"]
    assert found.parameters == {"stored": 0, "used": 0, "used_without_heads": None}
    assert found.checkpoint_digest == "none" and set(found.macs["superb"]) == {"utterances", "audio_s", "audio", "macs"}
    assert found.macs["superb"]["macs"] > 0, "its mel filters are a product of matrices"
    assert [(one["threads"], one["what"]) for one in found.runs] == [(1, "1 s"), (1, "superb")]
    path = write_profile(tmp_path, found)
    assert read_profiles([tmp_path]) == {path: found}


def test_parameters_that_no_hidden_state_depends_on_are_not_used(toy_student):
    expert = UpstreamExpert(toy_student)
    expert.forgotten = torch.nn.Linear(10, 10)
    counts = count_parameters(expert)
    assert counts["stored"] - counts["used"] == 110
    assert all(weight.grad is None for weight in expert.parameters())


class Fairseq(torch.nn.Module):
    """Freezes its extractor as fairseq's models do, in which s3prl's upstreams have a factor of 0."""

    def __init__(self):
        super().__init__()
        self.feature_extractor, self.layer, self.feature_grad_mult = torch.nn.Linear(1, 4), torch.nn.Linear(4, 4), 0.0

    def get_downsample_rates(self, key):
        return 1

    def forward(self, wavs):
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.feature_grad_mult > 0):
            features = self.feature_extractor(wavs[0][:, None])
        return {"hidden_states": [self.layer(features)]}


def test_extractors_that_are_frozen_are_used():
    teacher, fairseq = UpstreamExpert("robustdistiller_mini"), Fairseq()
    assert teacher.encoder.config.feature_grad_mult == 0  # as for all that are no students
    for upstream in (teacher, fairseq):
        counts = count_parameters(upstream)
        assert counts["used"] == counts["stored"] > 0
    assert teacher.encoder.config.feature_grad_mult == 0 == fairseq.feature_grad_mult


MEMORY = """
import numpy as np
from robustdistiller.eval.cost.timing import PeakMemory
with PeakMemory("cpu") as before:
    pass
with PeakMemory("cpu") as during:
    block = np.ones(60_000_000)  # 480 MB
    block.sort(); del block
with PeakMemory("cpu") as after:
    pass
assert during.peak_bytes - before.peak_bytes > 400e6, (before.peak_bytes, during.peak_bytes)
assert after.peak_bytes < before.peak_bytes + 100e6
"""


def test_memory_is_that_of_the_measurement():
    """In a process of its own, as profiles are measured: others may keep what is freed."""
    subprocess.run([sys.executable, "-c", MEMORY], check=True)


def test_librispeech_is_read_and_checked(tmp_path):
    name, samples = next(iter(UTTERANCES.items()))
    path = tmp_path / "test-clean" / "672" / "122797" / f"{name}.flac"
    path.parent.mkdir(parents=True)
    audio = np.round(1000 * np.sin(np.arange(samples) / 9)) / 32768
    soundfile.write(path, audio, 16000, subtype="PCM_16")
    np.testing.assert_allclose(utterance(name, tmp_path).numpy(), audio, atol=1e-6)
    soundfile.write(path, audio[:-1], 16000)
    with pytest.raises(ValueError, match=f"has {samples - 1} samples at 16000 Hz; the protocol's has {samples}"):
        utterance(name, tmp_path)
    result = run("fbank", "--librispeech", str(tmp_path / "nowhere"))
    assert result.exit_code == 2 and "672-122797-0033.flac is not there" in result.output


def test_what_cannot_be_profiled_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("robustdistiller_mimi")
    assert result.exit_code == 2 and "did you mean 'robustdistiller_mini'" in result.output
    result = run("fbank", "--durations", "1,soon")
    assert result.exit_code == 2 and "--durations 1,soon: expected seconds" in result.output
    result = run("fbank", "--durations", "0,1")
    assert result.exit_code == 2 and "expected one or more, from 0.05 s to an hour" in result.output
    result = run("fbank", "--device", "gpu")
    assert result.exit_code == 2 and "device 'gpu' cannot be used" in result.output
    (tmp_path / "file").touch()
    result = run("fbank", "--out", str(tmp_path / "file"))
    assert result.exit_code == 2 and "file must be a folder, found a file there" in " ".join(result.output.split())
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'RuntimeError: out of memory' >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RunFailed, match=r"fbank failed on cpu, 1 threads: .* out of memory \(exit status 3"):
        profile_upstream(ProfileSettings("fbank", durations_s=(0.5,)))
    assert not list(tmp_path.rglob("profile-*.json"))


def test_files_of_other_versions_are_refused(tmp_path):
    profile = Profile(
        upstream="fbank",
        label="fbank",
        checkpoint="",
        checkpoint_digest="none",
        checkpoint_digest_of="none",
        upstream_options="",
        parameters={"stored": 0, "used": 0, "used_without_heads": None},
        macs={"superb": {"macs": 1_600_000_000_000}, "lengths": []},
        runs=[],
        machine={"processor": "example", "cores": 2},
        start_utc="2025-01-01T00:00:00+00:00",
    )
    path = write_profile(tmp_path, profile)
    assert read_profiles([tmp_path]) == {path: profile}
    for change, message in (
        ({"version": 2}, "version 2; this release reads 1"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"macs": {}}, "without the MACs"),
    ):
        data = {**dataclasses.asdict(profile), **change}
        path.write_text(json.dumps(data))
        with pytest.raises(RecordError, match=message) as error:
            read_profiles([tmp_path])
        assert str(path) in str(error.value)

"""The files of small students are what their names say, and each is set against the right one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from research.bench import edge, load_reports
from research.bench.__main__ import main
from research.bench.inference import Way
from research.bench.settings import Settings
from robustdistiller.upstream import load_encoder, read_checkpoint
from robustdistiller.upstream.checkpoints.files import checkpoint_digest
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.export.onnx_file import load_model
from robustdistiller.upstream.export.runtime import OnnxEncoder
from robustdistiller.upstream.s3prl import bridge

pytestmark = pytest.mark.slow  # files of three kinds are made of each student

STUDENTS, PEERS = ("fast50", "fast25"), (edge.WAVLM_BASE_PLUS, edge.DISTILHUBERT)
KINDS = ("ours", "ONNX", "int8 dynamic", "int8 static")
NAMES = [f"{student}, {kind}" for student in STUDENTS for kind in KINDS]
Made = tuple[Mapping[str, Way], Mapping[str, Mapping[str, float | str]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    bridge.install()
    folder = tmp_path_factory.mktemp("edge")
    return edge._make(Settings("cpu", 0, 1, quick=True, work=folder))


@pytest.fixture
def told_memory(made, monkeypatch) -> dict[str, float]:
    """Each way's peak memory in MB, told instead of measured, and files that are not made again."""
    ways, _ = made
    memory = {name: 100.0 + number for number, name in enumerate(ways)}
    of_path = {ways[name].path: megabytes for name, megabytes in memory.items()}
    monkeypatch.setattr(edge, "_make", lambda settings: made)
    monkeypatch.setattr(edge, "peak_bytes", lambda way, duration_s: of_path[way.path] * 1e6)
    return memory


def test_every_file_is_what_its_name_says(made) -> None:
    ways, notes = made
    assert list(ways) == [*PEERS, *NAMES] and len({way.path for way in ways.values()}) == len(ways)
    for student in STUDENTS:
        ours, plain, *int8 = (ways[f"{student}, {kind}"] for kind in KINDS)
        encoder = load_encoder(ours.path)
        assert (encoder.config.front_end, encoder.config.squeeze) == ("log_mel", 2 if student == "fast25" else 1)
        assert notes[student]["parameters_M"] == pytest.approx(encoder.count_parameters() / 1e6)
        assert _precisions(plain) == ("float32", set())
        for way, kind in zip(int8, ("dynamic", "static")):
            assert _precisions(way) == (f"int8, {kind}", {"int8"})
            assert way.megabytes < plain.megabytes
        of_checkpoint = {OnnxEncoder(way.path).metadata["checkpoint_digest"] for way in (plain, *int8)}
        assert of_checkpoint == {checkpoint_digest(ours.path)}
    assert notes["fast25"]["GMAC_per_s"] < notes["fast50"]["GMAC_per_s"]


def test_peers_are_read_by_the_code_of_s3prl(made) -> None:
    ways, _ = made
    assert [read_checkpoint(ways[peer].path).config.num_layers for peer in PEERS] == [12, 2]
    for peer, module in zip(PEERS, ("wavlm", "distiller")):
        upstream = open_upstream(ways[peer].entry, str(ways[peer].path))
        assert type(upstream).__module__ == f"s3prl.upstream.{module}.expert"


def test_what_is_timed_are_the_hidden_states_without_predictions(made) -> None:
    ways, _ = made
    waveforms = [edge.noise(samples, seed) for seed, samples in enumerate((16_000, 9_000))]
    states = {name: edge._open(way)(waveforms)["hidden_states"] for name, way in ways.items()}
    assert [len(states[peer]) for peer in PEERS] == [13, 3]
    for student in STUDENTS:
        ours, plain, *int8 = (states[f"{student}, {kind}"][-1] for kind in KINDS)
        assert len(states[f"{student}, ours"]) == len(states[f"{student}, int8 static"]) == 3
        assert _difference(plain, ours) < 1e-4
        assert all(1e-4 < _difference(quantised, ours) < 0.3 for quantised in int8)
        assert not torch.equal(*int8)


def test_each_student_is_set_against_both_peers_on_every_batch(made, told_memory, monkeypatch) -> None:
    ways, heard = made[0], {}
    # Way to seconds of three rounds, the slowest of which must not count.
    told = {name: (2.0 + number, 1.0 + number, 90.0) for number, name in enumerate(ways)}

    def opened(way: Way):
        return lambda waveforms: heard.setdefault(way.path, []).append([len(waveform) for waveform in waveforms])

    def alternate(calls, rounds, device, clock):
        assert list(calls) == list(ways) and rounds == 3
        for call in calls.values():
            call()
        return told

    monkeypatch.setattr(edge, "_open", opened)
    monkeypatch.setattr(edge, "alternate", alternate)
    found = edge.run(Settings("cpu", 0, 3, quick=False, work=ways[PEERS[0]].path.parent))
    batches = {"10 s, batch of 1": 10, "2 s, batch of 1": 2, "10 s, batch of 8": 80, "2 s, batch of 8": 16}
    assert [sum(samples) / 16_000 for samples in heard[ways[PEERS[0]].path]] == list(batches.values())
    assert all(lengths == heard[ways[PEERS[0]].path] for lengths in heard.values())
    expected = {(part, ours, peer) for part in batches for ours in NAMES for peer in PEERS}
    assert {(c.part, c.ours, c.peer) for c in found.comparisons} == expected
    assert len(found.comparisons) == len(expected)
    for one in found.comparisons:
        assert (one.ours_s, one.peer_s) == (told[one.ours], told[one.peer])
        assert one.notes["real_time_factor_ours"] == pytest.approx(told[one.ours][0] / batches[one.part])
        assert one.notes["peak_memory_MB_ours"] == pytest.approx(told_memory[one.ours])
        assert one.notes["peak_memory_MB_other"] == pytest.approx(told_memory[one.peer])
        assert (one.notes["file_MB_ours"], one.notes["file_MB_other"]) == (
            ways[one.ours].megabytes,
            ways[one.peer].megabytes,
        )
        aims = {"fast50, ours": 5.0, "fast25, ours": 8.0} | {name: 10.0 for name in NAMES if "int8" in name}
        assert one.target == (aims.get(one.ours) if one.peer == edge.WAVLM_BASE_PLUS else None)


def test_the_report_has_a_row_for_every_pair(told_memory, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["edge", "--quick", "--rounds", "1", "--out", str(out), "--work", str(tmp_path / "work")]) == 0
    (report,) = load_reports(out)
    assert all(min(*c.ours_s, *c.peer_s) > 0 and c.part == "2 s, batch of 1" for c in report.comparisons)
    page = (out / "tables.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| 2 s")]
    assert [(row[2], row[4]) for row in rows] == [(ours, peer) for ours in NAMES for peer in PEERS]


def test_a_second_run_in_the_same_folder_makes_its_own_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(edge, "STUDENTS", {"small": edge.STUDENTS["small"]})
    digests = []
    for seed in (0, 1):
        ways, _ = edge._make(Settings("cpu", seed, 1, quick=True, work=tmp_path))
        digests.append({name: checkpoint_digest(way.path) for name, way in ways.items()})
    assert len(digests[0]) == 6 and all(digests[0][name] != digests[1][name] for name in digests[0])


def test_memory_is_that_of_a_process_of_its_own(tmp_path) -> None:
    options = ["--quick", "--rounds", "1", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["edge", *options]) == 0
    (report,) = load_reports(tmp_path / "out")
    assert len(report.comparisons) == len(NAMES) * len(PEERS)
    assert all(
        50 < c.notes[f"peak_memory_MB_{whose}"] < 5000 for c in report.comparisons for whose in ("ours", "other")
    )


def _precisions(way: Way) -> tuple[str, set[str]]:
    """What a file notes about its precision, and which types of weights in fewer bits it holds."""
    import onnx

    held = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in load_model(way.path).graph.initializer}
    # Zero points of activations are uint8.
    return OnnxEncoder(way.path).metadata["precision"], {name.lower() for name in held & {"INT8", "FLOAT16"}}


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())

"""A step of streams in onnxruntime: equal to torch for streams that begin at different times."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from robustdistiller.upstream import ChunkOptions, Stream, load_encoder, save_checkpoint
from robustdistiller.upstream.export import ExportError, OnnxEncoder, export_model
from robustdistiller.upstream.export.runtime import open_session
from robustdistiller.upstream.export.stream import OnnxStreams, StreamGraph, compare_streams

from .conftest import build

OPTIONS = ChunkOptions(8, left_frames=20, look_ahead_frames=2)
ENCODERS = {
    "student": {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 40},
    # Normalised waveforms, pre-norm, WavLM's gates, and a layer without attention.
    "large": {
        **{"conv_norm": "layer", "norm_first": True, "normalize_waveform": True, "num_heads": (4, 0)},
        **{"head_dim": 8, "relative_position": True, "gated_relative_position": True, "max_distance": 40},
        **{"num_buckets": 32, "position_bias_heads": ((0, 1, 2, 3), ())},
    },
    "log-mel": {"front_end": "log_mel", "conv_norm": "half_group", "conv_layers": ((24, 3, 1), (24, 3, 2))},
    "25 Hz": {"front_end": "log_mel", "conv_layers": ((24, 3, 1), (24, 3, 2)), "squeeze": 2},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Encoder and file of each."""
    folder, made = tmp_path_factory.mktemp("streams"), {}
    for name, options in ENCODERS.items():
        save_checkpoint(folder / f"{name}.ckpt", build(**options), {})
        written = export_model(folder / f"{name}.ckpt", folder / f"{name}.onnx", "onnx", stream=OPTIONS)
        made[name] = load_encoder(folder / f"{name}.ckpt").eval(), written
    return made


def audio(samples: int, seed: int) -> torch.Tensor:
    # Quiet at first, with an offset: statistics over time change from chunk to chunk.
    level = torch.linspace(0.001, 0.3, samples)
    sound = torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * level + 0.05
    sound[3000:6000] = 0.0  # digital silence
    sound[: 7000 * (seed % 2)] = 0.0  # of which a norm over time has nothing else to begin with
    return sound


@pytest.mark.parametrize("name", ENCODERS)
def test_two_streams_that_begin_at_different_times_equal_each_alone(files, name):
    encoder, written = files[name]
    session = open_session(written.path)
    notes = json.loads(session.get_modelmeta().custom_metadata_map["stream"])
    hop, size = notes["hop_samples"], notes["block_samples"]
    padding = notes["padding_samples"]
    assert (hop, size) == (8 * 320, 9 * 320 + 400 + 2 * padding)
    # The second row is two utterances: the first of them is cut off by the second.
    first, cut, last = audio(7 * hop + 100, 1), audio(9 * hop, 2), audio(2 * hop + 500, 3)
    plan = [[(first, s) for s in range(8)], [None, (cut, 0), (cut, 1), (cut, 2), (last, 0), (last, 1), (last, 2), None]]
    streams, heard = OnnxStreams(session, 2), {id(one): [] for one in (first, cut, last)}
    for now in zip(*plan):
        blocks, lengths = np.zeros((2, size), np.float32), np.zeros(2, np.int64)
        begins = np.array([place is not None and place[1] == 0 for place in now])
        for row, place in enumerate(now):
            if place is not None:
                part = np.pad(place[0].numpy(), padding)[place[1] * hop :][:size]
                blocks[row, : len(part)], lengths[row] = part, len(part)
        states, frames = streams.step(blocks, lengths, begins)
        for row, place in enumerate(now):
            if place is not None:
                heard[id(place[0])].append([state[row, : frames[row]] for state in states])
    for utterance, whole in ((first, True), (cut, False), (last, True)):
        stream = Stream(encoder, OPTIONS)
        outputs = [stream.push(utterance), *([stream.finish()] if whole else [])]
        expected = [
            torch.cat([output.upstream_states(encoder.config)[layer] for output in outputs], dim=1)[0]
            for layer in range(len(streams.names))
        ]
        found = [np.concatenate(parts) for parts in zip(*heard[id(utterance)])]
        for ours, theirs in zip(expected, found, strict=True):
            assert theirs.shape[0] == (len(ours) if whole else 24)
            ours = ours[: len(theirs)].numpy()
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("chunk_frames", [1, 2])
@pytest.mark.parametrize("name", ["student", "log-mel"])
def test_short_chunks_leave_pieces_without_a_frame(name, chunk_frames, files, tmp_path):
    checkpoint = files[name][1].path.with_suffix(".ckpt")
    options = ChunkOptions(chunk_frames, left_frames=20)
    written = export_model(checkpoint, tmp_path / "s.onnx", "onnx", ["layer_1"], stream=options)
    assert written.deviation.max_relative_error < 1e-4


def test_layers_that_are_not_asked_for_have_no_state(files, tmp_path):
    encoder, whole = files["student"]
    checkpoint = whole.path.with_suffix(".ckpt")
    written = export_model(checkpoint, tmp_path / "s.onnx", "onnx", ["layer_1"], stream=OPTIONS)
    session = open_session(written.path)
    names = {put.name for put in session.get_inputs()}
    assert "state.keys_1" in names and "state.keys_2" not in names
    heads = sum(value.numel() for value in encoder.heads.parameters())
    layer = sum(value.numel() for value in encoder.transformer.layers[1].parameters())
    parameters = session.get_modelmeta().custom_metadata_map["parameters"]
    assert int(parameters) == encoder.count_parameters() - heads - layer
    assert whole.num_bytes - written.num_bytes > 4 * (heads + layer) * 0.9


def test_int8_of_what_a_step_does_not_have_is_refused(files, tmp_path):
    checkpoint = files["student"][1].path.with_suffix(".ckpt")
    with pytest.raises(ValueError, match="int8 for extractor: this file has none of that"):
        export_model(checkpoint, tmp_path / "s.onnx", "onnx-int8-dynamic", int8_parts=["extractor"], stream=OPTIONS)
    assert not (tmp_path / "s.onnx").exists()


def test_the_file_says_what_it_is(files):
    _, written = files["student"]
    assert written.names == ("projected", "layer_1", "layer_2", "prediction_4", "prediction_8")
    assert written.deviation.max_relative_error <= 1e-5
    session = open_session(written.path)
    assert all(put.shape[0] == "streams" for put in (*session.get_inputs(), *session.get_outputs()))
    with pytest.raises(ValueError, match="is a step of streams; expected an encoder of whole utterances"):
        OnnxEncoder(written.path)


def test_a_file_that_loses_its_state_is_noticed(files):
    encoder, written = files["student"]
    graph, session = StreamGraph(encoder, None, OPTIONS), open_session(written.path)
    names = [put.name for put in session.get_outputs()]

    class Forgetful:
        def __getattr__(self, name):
            return getattr(session, name)

        def run(self, outputs, given):
            found = session.run(outputs, given)
            found[names.index("next.left")] *= 0
            return found

    assert compare_streams(graph, session).max_relative_error < 1e-5
    assert compare_streams(graph, Forgetful()).max_relative_error > 1e-2

    class Deaf(Forgetful):
        def run(self, outputs, given):
            return session.run(outputs, {**given, "begins": np.zeros_like(given["begins"])})

    assert compare_streams(graph, Deaf()).max_relative_error > 1e-2

    class Short(Forgetful):
        def run(self, outputs, given):
            found = session.run(outputs, given)
            found[names.index("frame_lengths")] -= 1
            return found

    with pytest.raises(ExportError, match="expected"):
        compare_streams(graph, Short())


@pytest.mark.usefixtures("integer_products")
def test_int8_is_smaller_and_close(files, tmp_path):
    _, written = files["student"]
    small = export_model(
        written.path.with_suffix(".ckpt"), tmp_path / "int8.onnx", "onnx-int8-dynamic", ["layer_2"], stream=OPTIONS
    )
    assert small.names == ("layer_2",) and small.num_bytes < written.num_bytes
    assert 1e-4 < small.deviation.rms_relative_error < 0.1


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("torch", {}, "a step of streams is exported to onnx or onnx-int8-dynamic; found torch"),
        ("onnx", {"position_depth": 2}, "only encoders with one position convolution can be computed in chunks"),
    ],
)
def test_what_cannot_be_a_step_is_refused(tmp_path, to, options, message):
    save_checkpoint(tmp_path / "a.ckpt", build(**options), {})
    with pytest.raises(ValueError, match=message):
        export_model(tmp_path / "a.ckpt", tmp_path / "a.onnx", to, stream=OPTIONS)
    assert not (tmp_path / "a.onnx").exists()

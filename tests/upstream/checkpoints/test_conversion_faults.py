"""What conversions must not destroy, and what other libraries make of the weights: layers, lengths, quiet audio."""

import contextlib
import importlib
import io
import json

import pytest
import torch

from robustdistiller.upstream import (
    EncoderConfig,
    SpeechEncoder,
    export_checkpoint,
    load_encoder,
    read_checkpoint,
    save_checkpoint,
)
from robustdistiller.upstream.checkpoints.formats.fairseq import shared_options
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name
from robustdistiller.upstream.fast.accelerate import accelerate
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions
from tests.upstream.checkpoints.test_export import build as build_encoder

SHAPE = {"embed_dim": 36, "num_layers": 3, "num_heads": 3, "ffn_dim": 50, "position_kernel": 17, "position_groups": 4}
SHAPE |= {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2), "projection": True}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True}
RELATIVE = {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40}
OWN = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


def build(**options):
    """An encoder in which every parameter has a say."""
    return build_encoder({**SHAPE, **options})


# Nothing is deleted that no conversion made


@pytest.mark.parametrize("foreign", ["student.ckpt", "notes.txt", ".git", "pytorch_model.bin", "README.md/inside"])
def test_a_folder_with_other_things_is_refused(foreign, tmp_path):
    save_checkpoint(tmp_path / "model.ckpt", build(), {})
    (tmp_path / "out" / foreign).parent.mkdir(parents=True)
    (tmp_path / "out" / foreign).write_text("thesis")
    with pytest.raises(FileExistsError, match="not only a conversion; give another folder"):
        export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface", overwrite=True)
    assert (tmp_path / "out" / foreign).read_text() == "thesis"
    assert {file.name for file in tmp_path.iterdir()} == {"model.ckpt", "out"}


def test_the_folder_of_the_source_is_refused(tmp_path):
    source = tmp_path / "exp" / "deep" / "student.ckpt"
    save_checkpoint(source, build(), {})
    before = source.read_bytes()
    for folder in (tmp_path / "exp", source.parent, tmp_path / "exp" / ".." / "exp"):
        with pytest.raises(ValueError, match="lie in one another"):
            export_checkpoint(source, folder, "huggingface", overwrite=True)
    (tmp_path / "link").symlink_to(source.parent)
    with pytest.raises(ValueError, match="lie in one another"):
        export_checkpoint(source, tmp_path / "link", "huggingface", overwrite=True)
    folder = export_checkpoint(source, tmp_path / "hf", "huggingface").path
    with pytest.raises(ValueError, match="lie in one another"):
        export_checkpoint(folder, folder / "model.safetensors", "native", overwrite=True)
    assert source.read_bytes() == before and {file.name for file in folder.iterdir()} == OWN


def test_an_older_conversion_is_replaced_file_by_file(tmp_path):
    save_checkpoint(tmp_path / "model.ckpt", build(), {})
    (tmp_path / "out").mkdir()
    export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface")  # an empty folder is as good as none
    folder = (tmp_path / "out").stat().st_ino
    save_checkpoint(tmp_path / "model.ckpt", build(norm_first=True), {})
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface")
    export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface", overwrite=True)
    assert read_checkpoint(tmp_path / "out").config.norm_first and (tmp_path / "out").stat().st_ino == folder
    assert {file.name for file in (tmp_path / "out").iterdir()} == OWN


# Normalisation


@torch.no_grad()
@pytest.mark.parametrize("rms", [0.1, 0.005, 0.003])
def test_quiet_audio_is_normalised_as_the_feature_extractor_does(rms, equality, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=36, num_hidden_layers=3, num_attention_heads=3, intermediate_size=50, conv_dim=(24,) * 7,
        num_conv_pos_embedding_groups=4, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
    )  # fmt: skip
    model = equality.randomise(transformers.Wav2Vec2Model(config))
    model.save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, padding="reference")
    waveforms, lengths = equality.batch(equality.LENGTHS), torch.tensor(equality.LENGTHS)
    waveforms = waveforms / 0.3 * rms
    rows = [row[:length].numpy() for row, length in zip(waveforms, equality.LENGTHS)]
    output = model(**extractor(rows, sampling_rate=16000, return_tensors="pt", padding=True), output_hidden_states=True)
    theirs = [*output.hidden_states[:-1], output.last_hidden_state]
    frames = encoder.num_frames(lengths).tolist()
    assert equality.worst_error(encoder(waveforms, lengths).hidden_states, theirs, frames) <= equality.TOLERANCE
    fairseq = load_encoder(tmp_path, padding="reference", normalize_eps=1e-5)
    other = equality.worst_error(fairseq(waveforms, lengths).hidden_states, theirs, frames)
    assert other > 0.01 or rms > 0.01


@pytest.mark.parametrize("to", ["native", "s3prl", "huggingface", "torchaudio", "dphubert"])
@pytest.mark.parametrize("eps", [1e-5, 1e-7])
def test_what_is_added_to_the_variance_comes_back_and_is_told(to, eps, tmp_path):
    save_checkpoint(tmp_path / "model.ckpt", build(**LARGE, normalize_eps=eps), {})
    exported = export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", to)
    assert read_checkpoint(exported.path).config.normalize_eps == eps
    theirs = {"s3prl": 1e-5, "dphubert": 1e-5, "huggingface": 1e-7}.get(to, eps)
    assert any("quiet audio" in note for note in exported.notes) == (theirs != eps)
    if to == "torchaudio":
        assert any(f"eps={eps:g}" in note for note in exported.notes)
    if to == "huggingface":
        assert f"layer_norm(waveform, waveform.shape, eps={eps:g})" in (exported.path / "README.md").read_text()


def as_earlier_versions_wrote_it(path, eps):
    """They noted that constant alone: beside the keys of the other software, or in preprocessor_config.json."""
    if path.is_dir():
        for name, change in (("config", {}), ("preprocessor_config", {"normalize_eps": eps})):
            content = json.loads((path / f"{name}.json").read_text())
            content.pop("robustdistiller", None)
            (path / f"{name}.json").write_text(json.dumps(content | change))
    else:
        content = torch.load(path)
        del content["robustdistiller"]
        torch.save({**content, "normalize_eps": eps}, path)


@torch.no_grad()
@pytest.mark.parametrize("to", ["s3prl", "huggingface", "torchaudio", "dphubert"])
@pytest.mark.parametrize("relative", [{}, RELATIVE], ids=["plain", "wavlm"])
def test_files_of_earlier_versions_keep_the_features_of_quiet_audio(to, relative, tmp_path):
    eps = 1e-5 if to == "huggingface" else 1e-7  # not what is taken where nothing is said
    encoder = build(**LARGE, **relative, normalize_eps=eps)
    save_checkpoint(tmp_path / "model.ckpt", encoder, {})
    path = export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", to).path
    as_earlier_versions_wrote_it(path, eps)
    torch.manual_seed(0)
    quiet = 0.003 * torch.randn(1, 8000)
    found = load_encoder(path)
    assert found.config.normalize_eps == eps and inspect_checkpoint(path).readable
    expected, heard = encoder(quiet).hidden_states[1:], found(quiet).hidden_states[1:]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(expected, heard, strict=True))
    other = load_encoder(path, normalize_eps=1e-7 if eps == 1e-5 else 1e-5)(quiet).hidden_states[-1]
    assert (other - expected[-1]).abs().max() > 0.01


@torch.no_grad()
def test_each_utterance_is_normalised_by_itself(equality):
    """Two utterances of very different level in one batch have the features that each has alone."""
    encoder = build(**LARGE)
    waveforms, lengths = equality.batch(equality.LENGTHS[:2]), torch.tensor(equality.LENGTHS[:2])
    waveforms = waveforms * torch.tensor([[1.0], [1e-3]]) + torch.tensor([[0.5], [0.0]])
    waveforms = waveforms.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], 0.0)
    together = encoder(waveforms, lengths).hidden_states
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(waveforms[row : row + 1, :length]).hidden_states
        ours = [state[row : row + 1] for state in together]
        assert equality.worst_error(ours, alone, [encoder.num_frames(length)]) <= equality.TOLERANCE


# torchaudio


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [LARGE, LARGE | RELATIVE, RELATIVE, {}], ids=["large", "wavlm-large", "wavlm", "base"]
)
def test_layers_of_torchaudio(options, equality, tmp_path):
    """All but the last are equal; of a pre-norm model the last one stands before the final norm, which is told."""
    import torchaudio

    encoder = build(**options)
    save_checkpoint(tmp_path / "model.ckpt", encoder, {})
    exported = export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out.pt", "torchaudio")
    content = torch.load(exported.path, weights_only=True)
    model = getattr(torchaudio.models, content["factory"])(**content["config"]).eval()
    model.load_state_dict(content["state_dict"])
    waveforms = equality.batch((12000,))
    heard = torch.nn.functional.layer_norm(waveforms, waveforms.shape[1:]) if "norm_first" in options else waveforms
    theirs, ours = model.extract_features(heard)[0], encoder(waveforms).hidden_states[1:]
    frames = [ours[0].shape[1]]
    assert equality.worst_error(ours[:-1], theirs[:-1], frames) <= 2e-4
    last = theirs[-1]
    if "norm_first" in options:
        assert equality.worst_error(ours[-1:], [last], frames) > 0.05
        last = model.encoder.transformer.layer_norm(last)
    assert equality.worst_error(ours[-1:], [last], frames) <= 2e-4
    told = [note for note in exported.notes if "final layer norm" in note and "extract_features" in note]
    assert len(told) == ("norm_first" in options)


@pytest.mark.parametrize("large", [True, False])
@torch.no_grad()
def test_what_torchaudios_bundles_return(large, equality, tmp_path):
    """The bundles of Large models wrap the model to normalise for it; those for recognition wrap Base models, too."""
    import torchaudio
    from torchaudio.pipelines._wav2vec2 import utils

    conv = [(24, 10, 5), *[(24, 3, 2)] * 4, *[(24, 2, 2)] * 2]
    mode = "layer_norm" if large else "group_norm"
    model = torchaudio.models.wavlm_model(
        mode, conv, large, 64, 0.0, 16, 4, 2, 1, 32, 800, 0.0, 50, 0.0, 0.0, large, 0.0, 29
    )
    equality.randomise(model)
    wrapped = utils._extend_model(model, normalize_waveform=large, apply_log_softmax=True)
    torch.save(wrapped.state_dict(), tmp_path / "model.pt")
    found = read_checkpoint(tmp_path / "model.pt")
    assert (found.format, found.config.normalize_waveform, found.config.norm_first) == ("torchaudio", large, large)
    assert found.guesses == ("relative positions differ up to 800 frames, as in every published WavLM",)
    encoder, waveforms = found.build(), 0.1 * equality.batch((12000,))
    theirs = wrapped.extract_features(waveforms)[0]
    assert equality.worst_error(encoder(waveforms).hidden_states[1:-1], theirs[:-1], [37]) <= 1e-5


# Lengths, s3prl


def test_lengths_of_transformers_are_ours(tmp_path):
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path / "model.ckpt", build(), {})
    model = transformers.AutoModel.from_pretrained(
        export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface").path
    )
    lengths = torch.tensor([400, 401, 719, 720, 721, 16000])
    ours = load_encoder(tmp_path / "out").num_frames(lengths)
    assert ours.tolist() == model._get_feat_extract_output_lengths(lengths).tolist() == [1, 1, 1, 2, 2, 49]


@torch.no_grad()
@pytest.mark.parametrize("normed", [True, False])
def test_states_of_a_pre_norm_distiller_are_s3prls(normed, equality, tmp_path):
    """s3prl's heads hear the final layer norm, and the last layer's hidden state stands before it."""
    encoder = build(
        feature_norm=False, norm_first=True, prediction_layers=(4, 8), prediction_dim=44, last_state_normed=normed
    )
    save_checkpoint(tmp_path / "model.ckpt", encoder, {})
    exported = export_checkpoint(tmp_path / "model.ckpt", tmp_path / "model.pt", "s3prl")
    assert any("before the final layer norm" in note for note in exported.notes) == normed
    found = read_checkpoint(exported.path)
    assert found.guesses == () and not found.config.last_state_normed
    hubconf = importlib.import_module("s3prl.upstream.distiller.hubconf")
    waveforms = equality.batch((12000,))
    with contextlib.redirect_stdout(io.StringIO()):
        model = hubconf.distiller_local(ckpt=str(exported.path)).eval()
        theirs = model(list(waveforms))["hidden_states"]
    ours = found.build()(waveforms).upstream_states(found.config)
    assert equality.worst_error(ours, theirs, [37] * 1) <= equality.TOLERANCE
    before = encoder(waveforms).upstream_states(encoder.config)
    last = encoder.config.num_layers
    errors = [equality.worst_error([a], [b], [37]) for a, b in zip(before, theirs, strict=True)]
    assert (errors[last] > 0.1) == normed and max(errors[:last] + errors[last + 1 :]) <= equality.TOLERANCE


# Batch norm in the positional convolution (mHuBERT-147's 25 Hz models)


@torch.no_grad()
def test_batch_norm_before_the_position_convolution(equality, tmp_path):
    encoder = equality.randomise(build(position_batch_norm=True, reference_mask="block", padding="masked"))
    waveforms, lengths = equality.batch((12000, 9000)), torch.tensor((12000, 9000))
    expected = encoder(waveforms, lengths).hidden_states
    alone = encoder(waveforms[1:, :9000]).hidden_states
    frames = encoder.num_frames(9000)
    assert equality.worst_error([state[1:] for state in expected], alone, [frames]) <= equality.TOLERANCE
    assert equality.worst_error(accelerate(encoder)(waveforms, lengths).hidden_states, expected, [37, frames]) <= 1e-5
    save_checkpoint(tmp_path / "model.ckpt", encoder, {}, dtype=torch.float16)
    assert load_encoder(tmp_path / "model.ckpt").state_dict().keys() == encoder.state_dict().keys()
    save_checkpoint(tmp_path / "model.ckpt", encoder, {})
    folder = export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "huggingface").path
    for read in (load_encoder(tmp_path / "model.ckpt"), load_encoder(folder)):
        assert equality.worst_error(read(waveforms, lengths).hidden_states, expected, [37, frames]) == 0
    for target, whose in (("torchaudio", "torchaudio"), ("s3prl", "s3prl")):
        with pytest.raises(ValueError, match=rf"batch norm before its position convolution, which {whose}'s models"):
            export_checkpoint(tmp_path / "model.ckpt", tmp_path / target, target)
    with pytest.raises(ValueError, match="batch norm before the position convolution cannot be computed in chunks"):
        ChunkedEncoder(encoder, ChunkOptions(8))


def test_fairseqs_names_of_a_batch_norm():
    """As fairseq's ``make_conv_pos``: the batch norm comes first in the sequence, so the convolution is its second."""
    config = EncoderConfig.tiny(position_batch_norm=True)
    names = {fairseq_name(name, config) for name in SpeechEncoder(config).state_dict() if "position" in name}
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names == {f"encoder.pos_conv.0.{part}" for part in parts} | {f"encoder.pos_conv.1.{x}" for x in parts[:2]}
    assert shared_options({"conv_pos_batch_norm": True}).position_batch_norm

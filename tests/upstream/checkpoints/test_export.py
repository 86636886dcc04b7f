"""What `convert` writes loads in the real libraries, computes the same there, and comes back bit for bit."""

import contextlib
import importlib
import io

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, read_checkpoint, save_checkpoint
from robustdistiller.upstream.checkpoints.export import TARGETS, export_checkpoint
from robustdistiller.upstream.checkpoints.formats.base import NotExportable

SHAPE = {"embed_dim": 36, "num_layers": 2, "num_heads": 3, "ffn_dim": 50, "position_kernel": 17, "position_groups": 4}
SHAPE |= {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2)}
STUDENT = {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 44}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True}
RELATIVE = {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40}
STACK = {"position_depth": 3, "position_kernel": 5, "conv_norm": "layer"}
BLOCK = {"reference_mask": "block"}
#: Kind of encoder: its options; then for each target who reads it, or a part of the refusal.
CASES = {
    "student": (STUDENT, "distiller_local", "HubertModel", "no layer norm between"),
    "student-one-head": ({**STUDENT, "prediction_layers": (3,)}, "distiller_local", "HubertModel", "no layer norm"),
    "student-narrow-heads": (
        {**STUDENT, "prediction_inner_dim": 20},
        "distiller_local",
        "HubertModel",
        "no layer norm",
    ),
    "student-headless": ({"feature_norm": False}, "distiller_local", "HubertModel", "no layer norm"),
    "student-relative": ({**STUDENT, **RELATIVE}, "has relative position biases", "WavLMModel always", "no layer norm"),
    "wav2vec2": ({}, "wav2vec2_local", "Wav2Vec2Model", "wav2vec2_model"),
    "wav2vec2-large": (LARGE, "wav2vec2_local", "Wav2Vec2Model", "wav2vec2_model"),
    "hubert": (BLOCK, "hubert_local", "HubertModel", "wav2vec2_model"),
    "hubert-large": ({**LARGE, **BLOCK}, "hubert_local", "HubertModel", "wav2vec2_model"),
    "hubert-tanh": ({**BLOCK, "activation": "gelu_tanh"}, "hubert_local", "HubertModel", "knows only gelu"),
    "wavlm": ({**RELATIVE, **BLOCK}, "wavlm_local", "WavLMModel", "wavlm_model"),
    "wavlm-large": ({**LARGE, **RELATIVE, **BLOCK}, "wavlm_local", "WavLMModel", "wavlm_model"),
    "wavlm-ungated": (
        {**RELATIVE, **BLOCK, "gated_relative_position": False},
        "wavlm_local",
        "has no gates",
        "has no gates",
    ),
    "data2vec": (STACK, "data2vec_local", "Data2VecAudioModel", "stack of convolutions"),
}
LENGTHS = (12077, 8000, 5311)


def build(options, seed=3):
    """An encoder in which every parameter has a say."""
    torch.manual_seed(seed)
    encoder = SpeechEncoder(EncoderConfig(**{**SHAPE, **options})).eval()
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if value.dim() == 1 or "gate" in name or "table" in name:
                value.add_(torch.randn(value.shape) * 0.3)
            elif ".attention." in name:
                value.mul_(1.5 / (value.std() * value.shape[1] ** 0.5))
            elif name.startswith("projection"):
                value.mul_(10)
    return encoder


def normalised(waveforms, lengths, config):
    """What users of libraries that leave it to them have to do."""
    if not config.normalize_waveform:
        return waveforms
    rows = zip(waveforms, lengths)
    return torch.stack([torch.nn.functional.pad(norm(row[:n]), (0, len(row) - n)) for row, n in rows])


def norm(wav):
    return torch.nn.functional.layer_norm(wav, wav.shape)


def s3prl_states(path, upstream, config, waveforms, lengths):
    hubconf = importlib.import_module(f"s3prl.upstream.{upstream.removesuffix('_local')}.hubconf")
    with contextlib.redirect_stdout(io.StringIO()):
        model = getattr(hubconf, upstream)(ckpt=str(path)).eval()
        return model([row[:n] for row, n in zip(waveforms, lengths)])["hidden_states"]


def huggingface_states(path, model, config, waveforms, lengths):
    from transformers import AutoModel

    loaded, info = AutoModel.from_pretrained(path, output_loading_info=True)
    assert type(loaded).__name__ == model
    assert not any(info.values()), info
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    waveforms = normalised(waveforms, lengths, config)
    output = loaded.eval()(waveforms, attention_mask=mask, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def torchaudio_states(path, factory, config, waveforms, lengths):
    import torchaudio

    content = torch.load(path, weights_only=True)
    assert content["factory"] == factory
    model = getattr(torchaudio.models, factory)(**content["config"]).eval()
    model.load_state_dict(content["state_dict"])
    waveforms = normalised(waveforms, lengths, config)
    lengths = None if factory == "wavlm_model" else torch.tensor(lengths)  # its WavLM has no mask
    states, _ = model.extract_features(waveforms, lengths)
    return [*states[:-1], model(waveforms, lengths)[0]] if config.norm_first else states


READ = {"s3prl": s3prl_states, "huggingface": huggingface_states, "torchaudio": torchaudio_states}
MASKS = {"huggingface": "conv", "torchaudio": "conv"}


def our_states(encoder, to, waveforms, lengths):
    """Hidden states in the order of the library."""
    output = encoder(waveforms, torch.tensor(lengths))
    if to == "torchaudio":
        return output.hidden_states[1:]
    if to == "s3prl" and not encoder.config.feature_norm:
        states = [output.projected, *output.hidden_states[1:]]
        return [*states, *output.predictions] if output.predictions else states * 2
    return output.hidden_states


@torch.no_grad()
def library_states(encoder, to, path, reader, waveforms, lengths):
    return READ[to](path, reader, encoder.config, waveforms, lengths)


@torch.no_grad()
def max_relative_error(equality, encoder, to, theirs, waveforms, lengths):
    encoder = rebuilt(encoder, padding="reference", reference_mask=MASKS.get(to, encoder.config.reference_mask))
    ours = our_states(encoder, to, waveforms, lengths)
    return equality.worst_error(ours, theirs, encoder.num_frames(torch.tensor(lengths)).tolist())


def rebuilt(encoder, **options):
    other = SpeechEncoder(encoder.config.replace(**options)).eval()
    other.load_state_dict(encoder.state_dict())
    return other


def write(encoder, tmp_path, to, **options):
    save_checkpoint(tmp_path / "model.ckpt", encoder, {"teacher": "none"})
    return export_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", to, overwrite=True, **options)


def each(to):
    column = {"s3prl": 1, "huggingface": 2, "torchaudio": 3}[to]
    return [(name, case[0], case[column]) for name, case in CASES.items()]


ALL = [(to, *case) for to in READ for case in each(to)]
WRITABLE = [case for case in ALL if " " not in case[3]]
REFUSED = [case for case in ALL if " " in case[3]]


@pytest.mark.parametrize(("to", "name", "options", "reader"), WRITABLE, ids=lambda value: str(value)[:20])
def test_equal_in_the_library_and_back(to, name, options, reader, equality, tmp_path, record_property):
    encoder = build(options)
    exported = write(encoder, tmp_path, to)
    assert exported.model.endswith(reader)
    back = read_checkpoint(exported.path)
    expected = encoder.state_dict()
    if to != "s3prl":
        expected = {key: value for key, value in expected.items() if not key.startswith("heads.")}
    assert back.state_dict.keys() == expected.keys()
    assert all(torch.equal(back.state_dict[key], value) for key, value in expected.items())
    waveforms, lengths = equality.batch(LENGTHS), torch.tensor(LENGTHS)
    with torch.no_grad():
        pairs = zip(back.build()(waveforms, lengths).hidden_states, encoder(waveforms, lengths).hidden_states)
        assert all(torch.equal(a, b) for a, b in pairs)
    kinds = {"single": LENGTHS[:1], "padded": LENGTHS} if reader != "wavlm_model" else {"single": LENGTHS[:1]}
    for kind, lengths in kinds.items():
        waveforms = equality.batch(lengths)
        theirs = library_states(encoder, to, exported.path, reader, waveforms, lengths)
        error = max_relative_error(equality, encoder, to, theirs, waveforms, lengths)
        print(f"{to} {name} {kind}: {error:.1e}")
        record_property(kind, error)
        assert error <= equality.TOLERANCE


@pytest.mark.parametrize(("to", "name", "options", "reader"), ALL, ids=lambda value: str(value)[:20])
def test_obstacles_are_known_without_writing(to, name, options, reader):
    found = TARGETS[to].obstacle(EncoderConfig(**{**SHAPE, **options}))
    assert found is None if " " not in reader else reader in found


@pytest.mark.parametrize(("to", "name", "options", "reason"), REFUSED, ids=lambda value: str(value)[:20])
def test_refused_with_the_property_that_prevents_it(to, name, options, reason, tmp_path):
    with pytest.raises(NotExportable) as error:
        write(build(options), tmp_path, to)
    text = str(error.value)
    assert reason in text and "model.ckpt cannot be written for" in text and "\n" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "options", "reader"),
    [
        ("s3prl", STUDENT, "distiller_local"),
        ("huggingface", STUDENT, "HubertModel"),
        ("huggingface", {**RELATIVE, **BLOCK}, "WavLMModel"),
        ("torchaudio", {**RELATIVE, **BLOCK}, "wavlm_model"),
    ],
    ids=["s3prl-student", "huggingface-student", "huggingface-wavlm", "torchaudio-wavlm"],
)
def test_every_weight_matters_to_the_comparison(to, options, reader, equality, tmp_path):
    """Change one weight after another in the encoder: the comparison with what was written must notice each."""
    encoder = build(options)
    exported = write(encoder, tmp_path, to)
    waveforms, lengths = equality.batch((4000,)), (4000,)
    theirs = library_states(encoder, to, exported.path, reader, waveforms, lengths)
    unnoticed = equality.unnoticed_mutations(
        encoder, lambda: max_relative_error(equality, encoder, to, theirs, waveforms, lengths)
    )
    assert [name for name in unnoticed if to == "s3prl" or not name.startswith("heads.")] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_heads": (3, 2), "head_dim": 12}, "attention heads are pruned (3, 2 of 3)"),
        ({"ffn_dim": (50, 0)}, "feed-forward widths differ from layer to layer (50, 0)"),
        ({"feature_scale": True}, "scales the channels of the conv extractor"),
        ({"attention_reuse": (1,)}, "layers 1 reuse attention weights"),
        ({"num_layers": 0}, "has no transformer layer"),
        ({**RELATIVE, "position_bias_heads": ((0, 1, 2), (2, 1, 0))}, "other columns of the relative position table"),
    ],
)
@pytest.mark.parametrize("to", READ)
def test_irregular_encoders_stay_native(options, reason, to, tmp_path):
    encoder = build(options)
    with pytest.raises(NotExportable, match="cannot be written for") as error:
        write(encoder, tmp_path, to)
    assert reason in str(error.value)
    back = read_checkpoint(write(encoder, tmp_path, "native").path)
    assert back.config == encoder.config
    assert all(torch.equal(back.state_dict[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prediction_layers": (4,)}, "has prediction heads and a layer norm.*--drop-heads"),
        ({**STUDENT, "conv_bias": True, "conv_norm": "layer"}, "conv extractor has biases"),
        ({**STUDENT, "normalize_waveform": True}, "normalises the waveform"),
        ({"projection": True, "embed_dim": 24, "num_heads": 4}, "has a projection from .* 24 channels to 24"),
        ({"position_depth": 2, "position_kernel": 2}, "position kernels of 3 or more, not 2"),
    ],
)
def test_other_refusals_of_s3prl(options, reason, tmp_path):
    with pytest.raises(NotExportable, match=reason):
        write(build(options), tmp_path, "s3prl")


def test_other_refusals_of_transformers(tmp_path):
    with pytest.raises(NotExportable, match="has no projection after the conv extractor, which Wav2Vec2Model"):
        write(build({"embed_dim": 24, "num_heads": 4}), tmp_path, "huggingface")
    with pytest.raises(NotExportable, match="not conv_norm 'group'"):
        write(build({**STACK, "conv_norm": "group"}), tmp_path, "huggingface")


def test_heads_can_be_dropped(tmp_path):
    encoder = build({"prediction_layers": (4, 8)})
    exported = write(encoder, tmp_path, "s3prl", drop_heads=True)
    assert exported.model == "s3prl upstream wav2vec2_local"
    native = read_checkpoint(write(encoder, tmp_path, "native", drop_heads=True).path)
    assert native.config.prediction_layers == () and native.config.starts_projected
    assert not any(name.startswith("heads.") for name in native.state_dict)


def test_what_is_left_out_is_said(tmp_path):
    notes = write(build(STUDENT), tmp_path, "huggingface").notes
    assert any("prediction heads (teacher layers 4, 8) are left out" in note for note in notes)
    assert any("over the padding too" in note for note in notes)
    assert any("input of the first layer, not the projection" in note for note in notes)
    large = write(build({**LARGE, **RELATIVE}), tmp_path / "large", "torchaudio")
    assert any("several of equal length" in note for note in large.notes)
    assert any("do not normalise the waveform" in note for note in large.notes)
    lost = write(build({**STUDENT, "feature_dropout": 0.1}), tmp_path / "lost", "s3prl")
    assert lost.notes == ("feature_dropout 0.1 (training only) has no place in the format",)


@pytest.mark.parametrize("options", [STUDENT, LARGE, {**RELATIVE, **BLOCK}, STACK], ids=str)
def test_configurations_come_back(options, tmp_path):
    """All that features and training depend on, from each format that can hold it."""
    encoder = build({**options, "dropout": 0.2, "attention_dropout": 0.05, "activation_dropout": 0.15})
    for to in ("s3prl", "huggingface", "torchaudio"):
        try:
            back = read_checkpoint(write(encoder, tmp_path / to, to).path).config.to_dict()
        except NotExportable:
            continue
        free = {"reference_mask", "projection", "first_state"}
        free |= {"prediction_layers", "prediction_dim"} if to != "s3prl" else set()
        different = {key for key, value in encoder.config.to_dict().items() if back[key] != value}
        assert different <= free, (to, different)


def test_every_target_is_tested():
    assert set(TARGETS) == {"native", "dphubert", "published", *READ}  # test_to_dphubert.py, publishing/

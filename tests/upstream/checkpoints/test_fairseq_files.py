"""fairseq's own files, old and new, built from s3prl's copies of its modules and, where it is installed, by fairseq."""

import argparse
import enum
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from robustdistiller.upstream import load_encoder, read_checkpoint

CONV = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2"
SMALL = {"encoder_layers": 2, "encoder_embed_dim": 36, "encoder_ffn_embed_dim": 50, "encoder_attention_heads": 3}
SMALL |= {"conv_pos": 17, "conv_pos_groups": 4, "conv_feature_layers": CONV}
LARGE = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}


def wav2vec2(**options):
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    cfg = {**SMALL, "quantize_targets": True, "latent_dim": 32, "final_dim": 32, **options}
    return Wav2Vec2Model(Wav2Vec2Config(**cfg)), cfg


def hubert(**options):
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    cfg = {"label_rate": 50.0, **SMALL, **options}
    return HubertModel(HubertConfig(**cfg), HubertPretrainingConfig(), [["a", "b", "c"]]), cfg


def data2vec(**options):
    from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel

    cfg = {**SMALL, "extractor_mode": "layer_norm", "pos_conv_depth": 3, "conv_pos": 24, **options}
    model = Data2VecAudioModel(Data2VecAudioConfig(**cfg))
    model.remove_pretraining_modules()
    return model, cfg


MODELS = {
    "wav2vec2": (wav2vec2, {}),
    "wav2vec2-large": (wav2vec2, LARGE),
    "hubert": (hubert, {}),
    "hubert-large": (hubert, LARGE),
    "data2vec_audio": (data2vec, {}),
}


class Mode(enum.Enum):
    """Stands for fairseq's enumerations, which its configurations hold."""

    DEFAULT = "default"


def fairseq_file(kind, model, cfg, name, normalize):
    """The content of the file that fairseq's trainer would write."""
    dictionary = types.SimpleNamespace(symbols=["a", "b"], indices={"a": 0})  # a class, not built
    weights = model.state_dict()
    if name.startswith("data2vec"):
        weights["_ema"] = {"encoder.layers.0.fc1.bias": torch.zeros(3)}
    content = {
        "model": weights,
        "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 400000}],
        "task_state": {"dictionaries": [dictionary]},
        "extra_state": {"train_iterator": {"epoch": 3}, "val_loss": 2.5},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(5)}}},
    }
    arch = name.removesuffix("-large")
    task = {"_name": "audio_pretraining", "data": "/somewhere", "normalize": normalize}
    if kind == "namespace":
        options = {"arch": arch, "task": "audio_pretraining", **task, **cfg}
        return content | {"args": argparse.Namespace(**options)}
    whole = {"common": {"fp16": True}, "optimization": {"lr": [0.0005]}, "model": {"_name": arch, **cfg}, "task": task}
    if kind == "omegaconf":
        whole["model"].setdefault("extractor_mode", Mode.DEFAULT)
        whole = OmegaConf.create(whole)
    return content | {"args": None, "cfg": whole}


def states(model, waveforms, lengths):
    """The input of each layer, then the encoder's output."""
    found, hooks = [], []
    for layer in model.encoder.layers:
        hooks.append(layer.register_forward_pre_hook(lambda _, args: found.append(args[0].transpose(0, 1))))
    hooks.append(model.encoder.register_forward_hook(lambda _, args, output: found.append(output[0])))
    with torch.no_grad():
        model.extract_features(waveforms, torch.arange(waveforms.shape[1]) >= lengths[:, None], mask=False)
    for hook in hooks:
        hook.remove()
    return found


def error(model, encoder, lengths, equality):
    waveforms, lengths = equality.batch(lengths), torch.tensor(lengths)
    with torch.no_grad():
        ours = encoder(waveforms, lengths).hidden_states
    return equality.worst_error(ours, states(model, waveforms, lengths), encoder.num_frames(lengths).tolist())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["namespace", "omegaconf", "dictionary"])
@pytest.mark.parametrize("name", MODELS)
def test_equal_on_single_and_padded(name, kind, legacy, tmp_path, equality):
    build, options = MODELS[name]
    model, cfg = build(**options)
    equality.randomise(model)
    normalize = "large" in name
    content = fairseq_file(kind, model, cfg, name, normalize)
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(tmp_path / "model.pt")
    assert (found.format, found.config.normalize_waveform) == ("fairseq", normalize)
    encoder = load_encoder(tmp_path / "model.pt", padding="reference", normalize_waveform=False)
    single, padded = (error(model, encoder, part, equality) for part in (equality.LENGTHS[:1], equality.LENGTHS))
    print(f"fairseq {name} {kind}: single {single:.1e}, padded {padded:.1e}, {encoder.count_parameters()} parameters")
    assert single <= equality.TOLERANCE and padded <= equality.TOLERANCE
    with torch.no_grad():
        encoder.transformer.layers[1].up.weight[0] += 0.5
    assert error(model, encoder, (8000,), equality) > equality.TOLERANCE


@pytest.mark.parametrize("kind", ["namespace", "omegaconf"])
def test_fine_tuned_models_are_read_as_their_encoder(kind, tmp_path, equality):
    model, cfg = wav2vec2()
    inner = fairseq_file(kind, equality.randomise(model), cfg, "wav2vec2", False)
    weights = {f"w2v_encoder.w2v_model.{name}": value for name, value in inner["model"].items()}
    weights |= {"w2v_encoder.proj.weight": torch.zeros(32, 36), "w2v_encoder.proj.bias": torch.zeros(32)}
    outer = {"_name": "wav2vec_ctc", "w2v_path": "/x.pt", "dropout": 0.0}
    if kind == "namespace":
        args = argparse.Namespace(arch="wav2vec_ctc", normalize=True, w2v_args=inner["args"])
        content = {"args": args, "model": weights}
    else:
        cfg = OmegaConf.create({"model": outer | {"w2v_args": inner["cfg"]}, "task": {"normalize": True}})
        content = {"args": None, "cfg": cfg, "model": weights}
    torch.save(content, tmp_path / "model.pt")
    encoder = load_encoder(tmp_path / "model.pt", padding="reference")
    assert encoder.config.normalize_waveform  # of the outer task
    encoder = load_encoder(tmp_path / "model.pt", padding="reference", normalize_waveform=False)
    assert error(model, encoder, equality.LENGTHS, equality) <= equality.TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["cfg"]["model"].update(_name="wav2vec2_conformer2"), "unknown: encoder.layers.9"),
        (
            lambda c: c["cfg"]["model"].update(_name="whisper"),
            "fairseq's model 'whisper' is not known here; known are hubert",
        ),
        (
            lambda c: c["cfg"]["model"].update(layer_type="conformer"),
            "layer_type is 'conformer'; this encoder knows only",
        ),
        (lambda c: c["cfg"]["model"].update(encoder_embed_dim="wide"), "invalid literal"),
        (lambda c: c["cfg"]["model"].update(encoder_layers=None), "an option has the wrong type"),
        (lambda c: c["cfg"].pop("task"), "'task' should be a dictionary of options, found NoneType"),
        (lambda c: c.update(model=None), "'model' should hold the weights, found NoneType"),
        (lambda c: c["model"].pop("layer_norm.bias"), "missing: layer_norm.bias"),
        (lambda c: c["model"].update({3: torch.ones(1)}), "named by text, found a name of type int"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    model, cfg = wav2vec2()
    content = fairseq_file("dictionary", model, cfg, "wav2vec2", False)
    content["model"]["encoder.layers.9.fc1.bias"] = content["model"]["encoder.layers.1.fc1.bias"]
    if "layers.9" not in message:
        content["model"].pop("encoder.layers.9.fc1.bias")
    change(content)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path / "model.pt")
    assert "model.pt: " in str(caught.value)


def armhubert(equality):
    """A student with reused attention as ARMHuBERT stores it, from s3prl's wav2vec 2.0 with attention spelled out."""
    conv = "[(8,10,5)] + [(16,1,1)] + [(16,3,2)] * 4 + [(36,1,1)] + [(36,2,2)] * 2"
    model, _ = wav2vec2(conv_feature_layers=conv, encoder_layers=4, encoder_attention_heads=3)
    equality.randomise(model)
    kept = {}
    for index, layer in enumerate(model.encoder.layers):
        attention = layer.self_attn
        attention.forward = types.MethodType(_reusing(index % 2 == 1, kept), attention)
    weights = {
        f"student_model.{name}": value
        for name, value in model.state_dict().items()
        if not name.startswith(("quantizer", "project_q"))
        and not any(f"layers.{i}.self_attn.{part}_proj" in name for i in (1, 3) for part in "qk")
    }
    weights |= {f"student_model.proj_head.{i}.lin_proj.weight": torch.zeros(40, 36) for i in range(4)}
    return model, {"state_dict": weights, "epoch": 199, "pytorch-lightning_version": "1.6.5", "callbacks": {}}


def _reusing(reuses, kept):
    """Attention spelled out: softmax of scaled products, or the weights that the layer before left in ``kept``."""

    def forward(self, query, key=None, value=None, key_padding_mask=None, **_):
        x = query.transpose(0, 1)
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if not reuses:
            logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
            if key_padding_mask is not None:
                logits = logits.masked_fill(key_padding_mask[:, None, None, :], float("-inf"))
            kept["weights"] = logits.softmax(-1)
        y = (kept["weights"] @ v).transpose(1, 2).flatten(2)
        return self.out_proj(y).transpose(0, 1), None

    return forward


def test_armhubert(tmp_path, equality):
    model, content = armhubert(equality)
    torch.save(content, tmp_path / "student.ckpt")
    assert read_checkpoint(tmp_path / "student.ckpt").format == "armhubert"
    encoder = load_encoder(tmp_path / "student.ckpt", padding="reference", num_heads=3)
    assert encoder.config.attention_reuse == (1, 3) and encoder.downsample_rate == 320
    single, padded = (error(model, encoder, part, equality) for part in (equality.LENGTHS[:1], equality.LENGTHS))
    print(f"armhubert: single {single:.1e}, padded {padded:.1e}, {encoder.count_parameters()} parameters")
    assert single <= equality.TOLERANCE and padded <= equality.TOLERANCE
    with torch.no_grad():
        encoder.transformer.layers[3].attention.v_proj.weight[0] += 0.5
    assert error(model, encoder, (8000,), equality) > equality.TOLERANCE


def test_armhubert_has_its_published_size():
    """26.45 M parameters with the maps to the teacher's width (https://arxiv.org/abs/2305.11685, table 1)."""
    from robustdistiller.upstream import EncoderConfig, SpeechEncoder

    conv = ((128, 10, 5), (256, 1, 1), *((256, 3, 2),) * 4, (480, 1, 1), *((480, 2, 2),) * 2)
    config = EncoderConfig(conv_layers=conv, embed_dim=480, ffn_dim=864, attention_reuse=(1, 3, 5, 7, 9, 11))
    with torch.device("meta"):
        encoder = SpeechEncoder(config)
    with_maps = encoder.count_parameters() + 480 + 12 * 481 * 768  # the mask embedding and the maps
    assert round(with_maps / 1e6, 2) == 26.45


@pytest.mark.parametrize(
    "found", [{"upsampler.weight": torch.zeros(36, 36, 2)}, {"encoder.layers.0.weight": torch.zeros(36, 72)}]
)
def test_students_that_shorten_time_in_other_ways_are_refused(tmp_path, equality, found):
    _, content = armhubert(equality)
    content["state_dict"] |= {f"student_model.{name}": value for name, value in found.items()}
    torch.save(content, tmp_path / "student.ckpt")
    with pytest.raises(ValueError, match=r"student.ckpt: this student shortens time inside its transformer, but not"):
        read_checkpoint(tmp_path / "student.ckpt")


DATA2VEC = {"extractor_mode": "layer_norm", "pos_conv_depth": 3, "conv_pos": 24}
REAL = {
    "wav2vec2": ("wav2vec2", SMALL),
    "wav2vec2-large": ("wav2vec2", SMALL | LARGE),
    "hubert": ("hubert", SMALL),
    "hubert-large": ("hubert", SMALL | LARGE),
    "data2vec": ("data2vec_audio", SMALL | DATA2VEC),
}


@pytest.mark.skipif(not importlib.util.find_spec("fairseq"), reason="fairseq is missing (pip install fairseq-fixed)")
def test_equal_to_fairseq_itself(tmp_path, equality):
    """The real fairseq builds and saves the models in a process of its own: only there is it ever imported."""
    waveforms, lengths = equality.batch(equality.LENGTHS), torch.tensor(equality.LENGTHS)
    torch.save((REAL, waveforms, lengths), tmp_path / "cases.pt")
    script = Path(__file__).with_name("build_with_fairseq.py")
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for name in REAL:
        encoder = load_encoder(tmp_path / f"{name}.pt", padding="reference")
        theirs = torch.load(tmp_path / f"{name}.states.pt", weights_only=True)
        with torch.no_grad():
            ours = encoder(waveforms, lengths).hidden_states
            worst = equality.worst_error(ours, theirs, encoder.num_frames(lengths).tolist())
            print(f"real fairseq {name}: padded {worst:.1e}, {encoder.count_parameters()} parameters")
            encoder.transformer.layers[1].up.weight[0] += 0.5
            ours = encoder(waveforms, lengths).hidden_states
            mutated = equality.worst_error(ours, theirs, encoder.num_frames(lengths).tolist())
        assert worst <= equality.TOLERANCE < mutated, name

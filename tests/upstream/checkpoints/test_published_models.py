"""The facts of the published models' configuration files: each is read, and has the shape and size that is published.

The configurations are translated at full size, and the parameters counted without memory for them. Files are written
with random weights and the widths divided by 16.
"""

import argparse
import json

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, read_checkpoint
from robustdistiller.upstream.checkpoints.formats.base import Clues
from robustdistiller.upstream.checkpoints.formats.huggingface import translate
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, torchaudio_name

CONV = [[512, 10, 5], *[[512, 3, 2]] * 4, *[[512, 2, 2]] * 2]
CONV_TEXT = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


def hf(kind, layers, width, heads, ffn, normalize, large, **more):
    """``config.json`` and ``preprocessor_config.json``; ``large``: layer norms in the extractor, pre-norm layers."""
    config = {"model_type": kind, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    config |= {"intermediate_size": ffn, "conv_dim": [512] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2]}
    config |= {"conv_stride": [5, 2, 2, 2, 2, 2, 2], "num_conv_pos_embeddings": 128, "layer_norm_eps": 1e-5}
    config |= {"num_conv_pos_embedding_groups": 16, "hidden_act": "gelu", "feat_extract_activation": "gelu"}
    config |= {"feat_extract_norm": "layer" if large else "group", "do_stable_layer_norm": large, "conv_bias": large}
    return {**config, **more}, {"do_normalize": normalize, "sampling_rate": 16000}


RELATIVE = {"num_buckets": 320, "max_bucket_distance": 800}
STACK = {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5, "feat_extract_norm": "layer"}
HALF_RATE = {"conv_dim": [512] * 8, "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2], "conv_stride": [5, *[2] * 7]}
BASE, LARGE, XLARGE = (12, 768, 12, 3072), (24, 1024, 16, 4096), (48, 1280, 16, 5120)
#: Name on the Hub: its configuration, and millions of parameters.
HUGGINGFACE = {
    "microsoft/wavlm-base": (hf("wavlm", *BASE, False, False, **RELATIVE), 94.4),
    "microsoft/wavlm-base-plus": (hf("wavlm", *BASE, False, False, **RELATIVE), 94.4),
    "microsoft/wavlm-large": (hf("wavlm", *LARGE, True, True, conv_bias=False, **RELATIVE), 315.5),
    "facebook/hubert-base-ls960": (hf("hubert", *BASE, True, False), 94.4),
    "facebook/hubert-large-ll60k": (hf("hubert", *LARGE, True, True), 315.4),
    "facebook/hubert-xlarge-ll60k": (hf("hubert", *XLARGE, True, True), 962.5),
    "facebook/wav2vec2-base": (hf("wav2vec2", *BASE, True, False), 94.4),
    "facebook/wav2vec2-large": (hf("wav2vec2", *LARGE, True, False), 315.4),
    "facebook/wav2vec2-large-lv60": (hf("wav2vec2", *LARGE, True, True), 315.4),
    "facebook/wav2vec2-xls-r-300m": (hf("wav2vec2", *LARGE, True, True), 315.4),
    "facebook/wav2vec2-xls-r-1b": (hf("wav2vec2", *XLARGE, True, True), 962.5),
    "facebook/mms-300m": (hf("wav2vec2", *LARGE, True, True), 315.4),
    "facebook/mms-1b": (hf("wav2vec2", *XLARGE, True, True), 962.5),
    "facebook/data2vec-audio-base": (hf("data2vec-audio", *BASE, True, False, **STACK), 93.2),
    "facebook/data2vec-audio-large": (hf("data2vec-audio", *LARGE, True, False, **STACK), 313.3),
    "utter-project/mHuBERT-147": (hf("hubert", *BASE, True, False), 94.4),
    "slprl/mhubert-base-25hz": (hf("hubert", *BASE, True, False, conv_pos_batch_norm=True, **HALF_RATE), 94.9),
}


def parameters(config):
    with torch.device("meta"):
        return SpeechEncoder(config).count_parameters()


def narrow(values):
    """A configuration with its widths divided by 16, its heads by 4, and three layers."""
    small = {"hidden_size": values["hidden_size"] // 16, "intermediate_size": values["intermediate_size"] // 16}
    small |= {"num_attention_heads": values["num_attention_heads"] // 4, "num_hidden_layers": 3}
    small["conv_dim"] = [32] * len(values["conv_dim"])
    return {**values, **small}


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_huggingface(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    (config, preprocessor), millions = HUGGINGFACE[name]
    clues = Clues()
    found = translate(config, preprocessor, clues)
    assert clues.guesses == [] and round(parameters(found) / 1e6, 1) == millions
    shape = [config[key] for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")]
    assert [found.num_layers, found.embed_dim, found.heads[0], found.ffn_dims[0]] == shape
    assert found.downsample_rate == (640 if "25hz" in name else 320)
    assert found.position_batch_norm == ("25hz" in name)
    assert (found.normalize_waveform, found.normalize_eps) == (preprocessor["do_normalize"], 1e-7)
    assert found.relative_position == ("wavlm" in name) and found.norm_first == config["do_stable_layer_norm"]
    small = transformers.AutoConfig.for_model(**narrow(config))
    model = transformers.AutoModel.from_config(small)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(narrow(config)))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    read = read_checkpoint(tmp_path)
    assert read.config == translate(narrow(config), preprocessor, clues) and read.guesses == ()
    masked = "masked_spec_embed"  # of pre-training
    theirs = sum(value.numel() for key, value in model.named_parameters() if masked not in key)
    assert parameters(read.config) == theirs


def fairseq_cfg(layers, width, heads, ffn, large, **more):
    cfg = {"encoder_layers": layers, "encoder_embed_dim": width, "encoder_attention_heads": heads}
    cfg |= {"encoder_ffn_embed_dim": ffn, "conv_feature_layers": CONV_TEXT, "conv_pos": 128, "conv_pos_groups": 16}
    cfg |= {"extractor_mode": "layer_norm" if large else "default", "layer_norm_first": large, "conv_bias": False}
    return {**cfg, "activation_fn": "gelu", "dropout": 0.0, "encoder_layerdrop": 0.0, **more}


WAVLM = {"relative_position_embedding": True, "num_buckets": 320, "max_distance": 800, "gru_rel_pos": True}
#: Name of the file: its options, whether the task normalises, and millions of parameters.
FAIRSEQ = {
    "WavLM-Base": (fairseq_cfg(*BASE, False, normalize=False, **WAVLM), None, 94.4),
    "WavLM-Base+": (fairseq_cfg(*BASE, False, normalize=False, **WAVLM), None, 94.4),
    "WavLM-Large": (fairseq_cfg(*LARGE, True, normalize=True, **WAVLM), None, 315.5),
    "hubert_base_ls960": (fairseq_cfg(*BASE, False, _name="hubert"), False, 94.4),
    "hubert_large_ll60k": (fairseq_cfg(*LARGE, True, _name="hubert"), True, 315.4),
    "hubert_xtralarge_ll60k": (fairseq_cfg(*XLARGE, True, _name="hubert"), True, 962.5),
    "wav2vec_small": (fairseq_cfg(*BASE, False, arch="wav2vec2"), False, 94.4),
    "xlsr2_300m": (fairseq_cfg(*LARGE, True, _name="wav2vec2", conv_bias=True), True, 315.4),
    "data2vec audio_base_ls": (
        fairseq_cfg(*BASE, False, _name="data2vec_audio", extractor_mode="layer_norm", conv_pos=95, pos_conv_depth=5),
        True,
        93.2,
    ),
}


NAMED = {"WavLM-Base+": "wavlm_base_plus", "WavLM-Large": "wavlm_large", "hubert_base_ls960": "hubert_base"}
NAMED |= {"hubert_large_ll60k": "hubert_large", "xlsr2_300m": "xlsr_300m"}


@pytest.mark.parametrize("name", NAMED)
def test_named_shapes_are_those_of_the_published_files(name):
    cfg, task, millions = FAIRSEQ[name]
    published, named = encoder_of(cfg, cfg["normalize"] if task is None else task), getattr(EncoderConfig, NAMED[name])
    assert round(parameters(named()) / 1e6, 1) == millions
    untold = {"projection": True, "reference_mask": "conv", "dropout": 0.1}
    assert named(**untold) == published.replace(**untold)
    assert named(num_layers=2).num_layers == 2


def small_cfg(cfg):
    width, conv = cfg["encoder_embed_dim"] // 16, CONV_TEXT.replace("512", "32")
    small = {"encoder_embed_dim": width, "encoder_ffn_embed_dim": width * 4, "encoder_layers": 3}
    return {**cfg, **small, "encoder_attention_heads": 4, "conv_feature_layers": conv}


def encoder_of(cfg, normalize):
    wavlm, stack = "relative_position_embedding" in cfg, cfg.get("pos_conv_depth", 1)
    layers = [[32 if cfg["encoder_embed_dim"] < 100 else 512, *layer[1:]] for layer in CONV]
    return EncoderConfig(
        conv_layers=layers, conv_norm="layer" if cfg["extractor_mode"] == "layer_norm" else "group",
        conv_bias=cfg["conv_bias"], embed_dim=cfg["encoder_embed_dim"], num_layers=cfg["encoder_layers"],
        num_heads=cfg["encoder_attention_heads"], ffn_dim=cfg["encoder_ffn_embed_dim"], projection=True,
        norm_first=cfg["layer_norm_first"], position_depth=stack, position_kernel=cfg["conv_pos"] // stack,
        relative_position=wavlm, gated_relative_position=wavlm, normalize_waveform=normalize,
    )  # fmt: skip


@pytest.mark.parametrize("name", FAIRSEQ)
def test_fairseq_and_wavlm(name, tmp_path):
    cfg, task, millions = FAIRSEQ[name]
    normalize = cfg["normalize"] if task is None else task
    assert round(parameters(encoder_of(cfg, normalize)) / 1e6, 1) == millions
    expected = encoder_of(small_cfg(cfg), normalize)
    weights = {fairseq_name(key, expected): value for key, value in SpeechEncoder(expected).state_dict().items()}
    weights["mask_emb"] = torch.zeros(expected.embed_dim)
    options = small_cfg(cfg)
    content = {"cfg": options, "model": weights}
    if "arch" in cfg:
        content = {"args": argparse.Namespace(normalize=task, **options), "model": weights}
    elif task is not None:
        content = {"cfg": {"model": options, "task": {"normalize": task}}, "args": None, "model": weights}
    torch.save(content, tmp_path / "model.pt")
    found = read_checkpoint(tmp_path / "model.pt")
    assert found.guesses == () and not found.is_student
    free = {"projection", "reference_mask", "dropout", "attention_dropout"}
    assert {key for key, value in found.config.to_dict().items() if expected.to_dict()[key] != value} <= free


def test_distilhubert(tmp_path):
    """leo19941227/distilhubert: 23.49 M parameters and 3.54 M in its three heads."""
    full = EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12))
    assert round(parameters(full) / 1e6, 2) == 27.03
    options = {"extractor_mode": "default", "extractor_conv_feature_layers": CONV_TEXT.replace("512", "32")}
    options |= {"extractor_dropout": 0.0, "feature_grad_mult": 0.1, "conv_pos": 128, "conv_pos_groups": 16}
    options |= {"encoder_layers": 2, "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 192, "activation_fn": "gelu"}
    options |= {"encoder_attention_heads": 12, "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}
    options |= {"encoder_layerdrop": 0.0, "final_dim": 48, "out_layer_type": "expand-last", "out_layer_inter_dim": -1}
    options |= {"n_tasks": 3, "task_emb_type": "expand-last", "loss_type": "l1", "cosine_loss": 1.0}
    options |= {"pred_layer_id": [4, 8, 12], "init_teacher_conv_layers": True, "init_teacher_encoder_layers": True}
    small = [[32, *layer[1:]] for layer in CONV]
    config = full.replace(embed_dim=48, ffn_dim=192, conv_layers=small)
    weights = {fairseq_name(key, config): value for key, value in SpeechEncoder(config).state_dict().items()}
    weights["output_layer.2.bias"] = weights["output_layer.2.bias"][None, None]
    torch.save({"Config": {"distiller": options}, "Distiller": weights}, tmp_path / "states.ckpt")
    found = read_checkpoint(tmp_path / "states.ckpt")
    assert (found.config.num_layers, found.config.prediction_layers, found.is_student) == (2, (4, 8, 12), True)
    assert found.config.feature_grad_mult == 0.1 and found.guesses == ()


@pytest.mark.parametrize("kind", ["DPHuBERT", "DPWavLM"])
def test_dphubert_and_dpwavlm(kind, tmp_path):
    """Twelve layers with other numbers of heads and widths in each, pruned conv channels, 64-wide heads of twelve."""
    kept = [[0, 3, 5], [1], list(range(12)), [], [11], [2, 4]] * 2
    feeds = [24, 12, 0, 48, 7, 31] * 2
    channels = [11, 32, 27, 30, 32, 25, 29]
    cfg = {"extractor_mode": "group_norm", "extractor_conv_bias": False, "encoder_embed_dim": 768}
    cfg |= {"extractor_conv_layer_config": [[width, *layer[1:]] for width, layer in zip(channels, CONV)]}
    cfg |= {"encoder_projection_dropout": 0.1, "encoder_pos_conv_kernel": 128, "encoder_pos_conv_groups": 16}
    cfg |= {"encoder_num_layers": 12, "encoder_use_attention": [bool(heads) for heads in kept]}
    cfg |= {"encoder_use_feed_forward": [width > 0 for width in feeds], "encoder_ff_interm_features": feeds}
    cfg |= {"encoder_attention_dropout": 0.1, "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.1}
    cfg |= {"encoder_layer_norm_first": False, "encoder_layer_drop": 0.05, "aux_num_out": None}
    cfg |= {"normalize_waveform": False, "encoder_prune_attention_heads": False}
    expected = {"conv_layers": cfg["extractor_conv_layer_config"], "head_dim": 64, "ffn_dim": feeds}
    expected |= {"num_heads": [len(heads) for heads in kept], "feature_scale": True, "first_state": "projected"}
    if kind == "DPHuBERT":
        cfg |= {"encoder_num_heads": [len(heads) for heads in kept], "encoder_head_dim": 64}
    else:
        cfg |= {"encoder_total_num_heads": [12] * 12, "encoder_remaining_heads": kept}
        cfg |= {"encoder_num_buckets": 320, "encoder_max_distance": 800}
        expected |= {"relative_position": True, "gated_relative_position": True, "position_bias_heads": kept}
    config = EncoderConfig(**expected)
    weights = {torchaudio_name(key, config): value for key, value in SpeechEncoder(config).state_dict().items()}
    torch.save({"config": cfg, "state_dict": weights}, tmp_path / "model.pth")
    found = read_checkpoint(tmp_path / "model.pth")
    assert (found.format, found.is_student, found.guesses) == ("dphubert", True, ())
    free = {"projection", "layerdrop", "feature_dropout"}
    assert {key for key, value in found.config.to_dict().items() if config.to_dict()[key] != value} <= free


def test_armhubert(tmp_path):
    """26.45 M parameters with the maps to the teacher's width; every second layer reuses attention."""
    conv = [[128, 10, 5], [256, 1, 1], *[[256, 3, 2]] * 4, [480, 1, 1], *[[480, 2, 2]] * 2]
    reuse = list(range(1, 12, 2))
    full = EncoderConfig(conv_layers=conv, embed_dim=480, ffn_dim=864, attention_reuse=reuse)
    assert round((parameters(full) + 480 + 12 * 481 * 768) / 1e6, 2) == 26.45
    small = [[width // 8, *layer] for width, *layer in conv]
    config = full.replace(conv_layers=small, embed_dim=96, ffn_dim=108)
    weights = {f"student_model.{fairseq_name(k, config)}": v for k, v in SpeechEncoder(config).state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 99, "hyper_parameters": {}}, tmp_path / "model.ckpt")
    found = read_checkpoint(tmp_path / "model.ckpt")
    assert found.config.attention_reuse == tuple(reuse) and found.config.heads == (12,) * 12
    assert found.config.conv_layers == tuple(map(tuple, small)) and found.is_student

"""Files of other origins behind s3prl: its wrapper, its featurizer, and its runner with -f, -l and -s."""

import json

import pytest
import torch

from robustdistiller.eval.check import toy_corpora
from robustdistiller.upstream import CheckpointError, EncoderConfig, SpeechEncoder, register
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, huggingface_name, torchaudio_name

CONV = ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)
SHAPE = {"conv_layers": CONV, "embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
SHAPE |= {"position_kernel": 8, "position_groups": 4, "projection": True}
CFG = {"encoder_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 32}
CFG |= {"conv_pos": 8, "conv_pos_groups": 4, "conv_feature_layers": str(list(CONV))}


def weights(name, **options):
    torch.manual_seed(6)
    model = SpeechEncoder(EncoderConfig(**{**SHAPE, **options}))
    return {name(key, model.config): value for key, value in model.state_dict().items()}


def huggingface(path):
    path.mkdir()
    config = {"model_type": "wav2vec2", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    channels, kernels, strides = map(list, zip(*CONV))
    config |= {"intermediate_size": 32, "conv_dim": channels, "conv_kernel": kernels, "conv_stride": strides}
    config |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": "group"}
    (path / "config.json").write_text(json.dumps(config))
    torch.save(weights(huggingface_name), path / "pytorch_model.bin")


def dphubert(path):
    cfg = {"extractor_mode": "group_norm", "extractor_conv_layer_config": CONV, "extractor_conv_bias": False}
    cfg |= {"encoder_embed_dim": 24, "encoder_num_layers": 2, "encoder_num_heads": [1, 2], "encoder_head_dim": 12}
    cfg |= {"encoder_use_attention": [True] * 2, "encoder_use_feed_forward": [True, False]}
    cfg |= {"encoder_ff_interm_features": [32, 0], "encoder_layer_norm_first": False}
    cfg |= {"encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 4}
    pruned = weights(torchaudio_name, num_heads=(1, 2), head_dim=12, ffn_dim=(32, 0), feature_scale=True)
    torch.save({"config": cfg, "state_dict": pruned}, path)


def fairseq(path):
    content = {"cfg": {"model": {"_name": "hubert", **CFG}, "task": {"normalize": True}}, "args": None}
    torch.save(content | {"model": weights(fairseq_name)}, path)


def distiller(path):
    students = weights(fairseq_name, feature_norm=False, prediction_layers=(4, 8))
    students["output_layer.2.bias"] = students["output_layer.2.bias"][None, None]
    cfg = {**CFG, "extractor_conv_feature_layers": CFG["conv_feature_layers"], "n_tasks": 2, "pred_layer_id": [4, 8]}
    torch.save({"Config": {"distiller": {**cfg, "final_dim": 24}}, "Distiller": students}, path)


WRITERS = {"huggingface": huggingface, "dphubert": dphubert, "fairseq": fairseq, "distiller": distiller}
FIRST = {"huggingface": "layer_input", "dphubert": "projected", "fairseq": "layer_input", "distiller": "projected"}


@pytest.mark.parametrize("name", WRITERS)
def test_wrapper_and_featurizer(name, tmp_path):
    register()
    from s3prl.nn import Featurizer, S3PRLUpstream

    WRITERS[name](tmp_path / "model")
    upstream = S3PRLUpstream("robustdistiller_local", path_or_url=str(tmp_path / "model"))
    states, lengths = upstream(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    assert len(states) == upstream.num_layers == (5 if name == "distiller" else 3)
    assert upstream.upstream.names[0] == FIRST[name]
    features, feature_lengths = Featurizer(upstream)(states, lengths)
    assert features.shape == (2, 50, 24) and feature_lengths.tolist() == [50, 25]


RUNS = {
    "huggingface-s-paper": ("huggingface", ["-s", "paper"]),
    "dphubert-f": ("dphubert", ["-f"]),
    "fairseq-l": ("fairseq", ["-l", "1"]),
    "distiller-s-last_hidden_state": ("distiller", ["-s", "last_hidden_state"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_runner_with_its_options(name, tmp_path):
    from robustdistiller.eval.run.launcher import main

    kind, flags = RUNS[name]
    WRITERS[kind](tmp_path / "model")
    overrides = toy_corpora.build("IC", tmp_path / "data")
    overrides |= {f"config.runner.{key}": 2 for key in ("total_steps", "eval_step", "save_step", "log_step")}
    argv = ["-m", "train", "-u", "robustdistiller_local", "-k", tmp_path / "model", "-d", "fluent_commands", *flags]
    argv += ["-p", tmp_path / "exp", "-o", toy_corpora.as_option(overrides), "--device", "cpu"]
    assert main([str(word) for word in argv]) == 0
    state = torch.load(next((tmp_path / "exp").glob("states-*.ckpt")), weights_only=False)  # s3prl's own file
    assert ("Upstream" in state) == ("-f" in flags)
    if "-f" in flags:
        trained = state["Upstream"]["encoder.transformer.layers.1.attention.q_proj.weight"]
        assert not torch.equal(
            trained,
            weights(torchaudio_name, num_heads=(1, 2), head_dim=12, ffn_dim=(32, 0))[
                "encoder.transformer.layers.1.attention.q_proj.weight"
            ],
        )
    states = {"dphubert": 3}.get(kind)  # the runs with -s or -l weigh nothing
    weighed = state.get("Featurizer", {}).get("weights")
    assert states is None or weighed.numel() == states


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "model").write_text("hello")
    with pytest.raises(CheckpointError, match=r"model cannot be read as a checkpoint"):
        register()
        import s3prl.hub

        s3prl.hub.robustdistiller_local(ckpt=str(tmp_path / "model"))

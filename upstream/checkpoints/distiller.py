"""Reader for s3prl's Distiller layout, of DistilHuBERT and of the released RobustDistiller files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.fairseq import DEFAULT_CONV, shared_options, weights_of
from robustdistiller.upstream.checkpoints.names import fairseq_name, from_foreign
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.model.config import EncoderConfig

#: How a Distiller predicts its teacher: heads after the last layer, or its own hidden states.
_HEADS, _HEADLESS = "expand-last", ("none", "self-hidden")


def read_distiller(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """``Config`` and ``Distiller``; what else the runner stored (``Optimizer``, ``Args``) is not looked at.

    Students with ``task_emb_type`` ``"expand-last"`` have heads; those with ``"self-hidden"`` or ``"none"`` and no
    output layer have none. The ``"add"`` and ``"concat"`` types need one pass per teacher layer; no student of these
    was published, and they are refused.

    RobustDistiller's students of WavLM leave the relative position bias out. A student that kept it is recognised by
    its parameters.
    """
    cfg = dict(options_of(options_of(content, "Config"), "distiller"))
    weights = weights_of(content, "Distiller")
    has_heads = _has_heads(cfg)
    tasks = int(cfg.get("n_tasks", 12))
    layers = tuple(int(layer) for layer in cfg.get("pred_layer_id", range(1, tasks + 1)))
    if has_heads and len(layers) != tasks:
        raise ValueError(f"Distiller options disagree: n_tasks {tasks}, pred_layer_id {layers}")
    cfg["conv_feature_layers"] = cfg.pop("extractor_conv_feature_layers", DEFAULT_CONV)
    cfg.setdefault("encoder_layers", 1)
    cfg.setdefault("activation_dropout", 0.1)
    inner = int(cfg.get("out_layer_inter_dim", -1))
    table = weights.get("encoder.layers.0.self_attn.relative_attention_bias.weight")
    config = shared_options(
        cfg,
        feature_norm=False,
        relative_position=table is not None,
        gated_relative_position="encoder.layers.0.self_attn.grep_a" in weights,
        num_buckets=320 if table is None else len(table),
        max_distance=int(cfg.get("max_distance", 800)),  # every released WavLM has 800
        prediction_layers=layers if has_heads else (),
        prediction_dim=int(cfg.get("final_dim", 768)) if has_heads else None,
        prediction_inner_dim=inner if inner > 0 and has_heads else None,
        reference_mask="conv",
        first_state="auto" if has_heads else "projected",
    )
    return config, from_foreign(weights, config, fairseq_name)


def _has_heads(cfg: Mapping[str, Any]) -> bool:
    task, output = str(cfg.get("task_emb_type", _HEADS)), str(cfg.get("out_layer_type", _HEADS))
    if (task, output) == (_HEADS, _HEADS):
        return True
    if task in _HEADLESS and output in _HEADLESS:
        return False
    raise ValueError(
        f"Distiller options task_emb_type {task!r} with out_layer_type {output!r} are not known here; expected both "
        f"{_HEADS!r}, or each one of {', '.join(map(repr, _HEADLESS))}"
    )

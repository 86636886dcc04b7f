"""s3prl's Distiller layout, of DistilHuBERT and of the released RobustDistiller files: read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robustdistiller.upstream.checkpoints.formats.base import Clues, Format, has_keys, lost
from robustdistiller.upstream.checkpoints.formats.fairseq import DEFAULT_CONV, shared_options, spelled_options
from robustdistiller.upstream.checkpoints.formats.shapes import MAX_DISTANCE
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, from_foreign
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.config import EncoderConfig

#: How a Distiller predicts its teacher: heads after the last layer, or its own hidden states.
_HEADS, _HEADLESS = "expand-last", ("none", "self-hidden")


def read_distiller(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
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
    if table is not None and "max_distance" not in cfg:
        clues.guesses.append(f"relative positions differ up to {MAX_DISTANCE} frames, as in every published WavLM")
    config = shared_options(
        cfg,
        feature_norm=False,
        relative_position=table is not None,
        gated_relative_position="encoder.layers.0.self_attn.grep_a" in weights,
        num_buckets=320 if table is None else len(table),
        max_distance=int(cfg.get("max_distance", MAX_DISTANCE)),
        prediction_layers=layers if has_heads else (),
        prediction_dim=int(cfg.get("final_dim", 768)) if has_heads else None,
        prediction_inner_dim=inner if inner > 0 and has_heads else None,
        reference_mask="conv",
        first_state="auto" if has_heads else "projected",
        last_state_normed=not cfg.get("layer_norm_first", False),
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


def differences(config: EncoderConfig) -> tuple[str, ...]:
    """What s3prl's Distiller does not do as the encoder does."""
    notes = lost(config, ("feature_dropout",))
    if config.norm_first and config.last_state_normed:
        notes += ("s3prl gives the last layer's hidden state as it is before the final layer norm",)
    if not config.prediction_layers:
        notes += ("s3prl lists the hidden states of a Distiller without heads twice",)
    return notes


def distiller_content(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    """``Config`` and ``Distiller``, of weights under fairseq's names."""
    options = spelled_options(config)
    options["extractor_conv_feature_layers"] = options.pop("conv_feature_layers")
    del options["conv_bias"], options["dropout_input"]
    layers = list(config.prediction_layers)
    kind = "expand-last" if layers else "self-hidden"
    predicted = layers or list(range(config.num_layers + 1))
    options |= {
        "n_tasks": len(predicted),
        "pred_layer_id": predicted,
        "final_dim": config.prediction_dim or config.embed_dim,
        "out_layer_inter_dim": config.prediction_inner_dim or -1,
        "task_emb_type": kind,
        "out_layer_type": kind,
    }
    return {"Config": {"distiller": options}, "Distiller": _heads_for_s3prl(weights)}


def _heads_for_s3prl(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One head is a linear layer in s3prl, several are one tensor."""
    if "output_layer.2.weight" not in weights:
        return weights
    matrix, bias = weights.pop("output_layer.2.weight"), weights.pop("output_layer.2.bias")
    if len(matrix) == 1:
        return {
            **weights,
            "output_layer.2.layer.weight": matrix[0].T.contiguous(),
            "output_layer.2.layer.bias": bias[0],
        }
    return {**weights, "output_layer.2.weight": matrix, "output_layer.2.bias": bias[None, None]}


FORMATS = (
    Format(
        "distiller",
        "s3prl's Distiller and RobustDistiller: Config, Distiller",
        has_keys("Config", "Distiller"),
        read_distiller,
    ),
)

"""FitHuBERT (https://arxiv.org/abs/2207.00555), ARMHuBERT (https://arxiv.org/abs/2305.11685) and their kin.

They are read from Lightning's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robustdistiller.upstream.checkpoints.formats.base import Clues, Format
from robustdistiller.upstream.checkpoints.formats.shapes import options_from_shapes, shapes_of
from robustdistiller.upstream.checkpoints.parameter_names import (
    fairseq_name,
    fithubert_name,
    from_foreign,
    older_spelling,
)
from robustdistiller.upstream.checkpoints.plain import weights_of
from robustdistiller.upstream.model.config import EncoderConfig

#: Maps to the teacher's width and length, and parts of the training (name prefixes).
_TRAINING_ONLY = ("proj_head.", "final_proj.", "cnn_proj_head.", "upsampler.", "mask_emb", "specaug")


def read_armhubert(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """FitHuBERT, ARMHuBERT, ARMwavLM, MaskHuBERT and STaRHuBERT: Lightning's ``state_dict`` with a ``student_model``.

    The configuration lies in another file, but follows from the shapes: attention is reused in layers without queries,
    and all published students have 12 heads. The linear maps to the teacher's width are left out, so that the hidden
    states are the layers' own. In FitHuBERT (``enable_tr_layer``) these maps lengthen time, too, by which a convolution
    before the first layer has shortened it; here each state of a layer is given so many times instead. Students that
    shorten time otherwise, or between layers, are refused.
    """
    prefix = "student_model."
    everything = weights_of(content, "state_dict")
    weights = older_spelling({k.removeprefix(prefix): v for k, v in everything.items() if k.startswith(prefix)})
    if any(name.startswith("encoder.transformer.") for name in weights):
        raise ValueError(
            "it is a checkpoint of DPHuBERT's training, without the options of its model: run DPHuBERT's prune.py or, "
            "after the final distillation, save_final_ckpt.py on it, and give the file that this writes"
        )
    name = fithubert_name if (squeeze := _squeeze(weights)) > 1 else fairseq_name
    conv_norm = "layer" if "feature_extractor.conv_layers.1.2.1.weight" in weights else "group"
    known = EncoderConfig(conv_norm=conv_norm)
    heads = clues.num_heads or 12
    if clues.num_heads is None:
        clues.guesses.append("there are 12 attention heads, as in the published students; num_heads would say it")
    options = options_from_shapes(shapes_of(weights, lambda ours: name(ours, known)), Clues(heads))
    config = EncoderConfig(
        **{**options, "conv_norm": conv_norm},
        squeeze=squeeze,
        squeeze_by="conv",
        expand_by="repeat",
        feature_dropout=0.05,
        activation_dropout=0.1,
    )
    return config, from_foreign(weights, config, name, _TRAINING_ONLY)


def _squeeze(weights: Mapping[str, Any]) -> int:
    """Frames that FitHuBERT's convolution in the place of the first layer joins, 1 where there is none."""
    joins = weights.get("encoder.layers.0.weight")
    if isinstance(joins, Tensor) and joins.dim() == 3 and joins.shape[2] > 1:
        return joins.shape[2]
    if any(name.startswith("upsampler.") for name in weights) or joins is not None:
        raise ValueError(
            "this student shortens time inside its transformer, but not by a convolution before the first layer "
            "(tr_layer_type: conv1d, tr_layer_index: 0), which is all that is known here"
        )
    return 1


def _matches(content: Mapping[str, Any]) -> bool:
    weights = content.get("state_dict")
    return isinstance(weights, Mapping) and any(
        isinstance(name, str) and name.startswith("student_model.") for name in weights
    )


FORMATS = (
    Format("armhubert", "FitHuBERT, ARMHuBERT, STaRHuBERT: state_dict with a student_model", _matches, read_armhubert),
)

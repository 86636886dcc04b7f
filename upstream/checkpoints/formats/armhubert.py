"""ARMHuBERT and its kin (https://arxiv.org/abs/2305.11685), read from Lightning's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.formats.base import Clues, Format
from robustdistiller.upstream.checkpoints.formats.shapes import options_from_shapes, shapes_of
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, from_foreign, older_spelling
from robustdistiller.upstream.checkpoints.plain import weights_of
from robustdistiller.upstream.model.config import EncoderConfig


def read_armhubert(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """ARMHuBERT, ARMwavLM, MaskHuBERT and STaRHuBERT: Lightning's ``state_dict`` with a ``student_model``.

    The configuration lies in another file, but follows from the shapes: attention is reused in layers without queries,
    and all published students have 12 heads. The linear maps to the teacher's width are left out, so that the hidden
    states are the layers' own. Students that shorten time inside the transformer are refused.
    """
    prefix = "student_model."
    everything = weights_of(content, "state_dict")
    weights = older_spelling({k.removeprefix(prefix): v for k, v in everything.items() if k.startswith(prefix)})
    if any(name.startswith("upsampler.") for name in weights):
        raise ValueError("this student shortens time inside its transformer (enable_tr_layer), which is not known here")
    conv_norm = "layer" if "feature_extractor.conv_layers.1.2.1.weight" in weights else "group"
    known = EncoderConfig(conv_norm=conv_norm)
    heads = clues.num_heads or 12
    if clues.num_heads is None:
        clues.guesses.append("there are 12 attention heads, as in the published students; num_heads would say it")
    options = options_from_shapes(shapes_of(weights, lambda ours: fairseq_name(ours, known)), Clues(heads))
    config = EncoderConfig(**{**options, "conv_norm": conv_norm}, feature_dropout=0.05, activation_dropout=0.1)
    return config, from_foreign(weights, config, fairseq_name, ("proj_head.", "final_proj.", "mask_emb", "specaug"))


def _matches(content: Mapping[str, Any]) -> bool:
    weights = content.get("state_dict")
    return isinstance(weights, Mapping) and any(
        isinstance(name, str) and name.startswith("student_model.") for name in weights
    )


FORMATS = (Format("armhubert", "ARMHuBERT and STaRHuBERT: state_dict with a student_model", _matches, read_armhubert),)

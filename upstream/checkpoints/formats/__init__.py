"""Every layout of checkpoint files: how it is recognised, read and written, one file for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.formats import (
    armhubert,
    distiller,
    dphubert,
    fairseq,
    huggingface,
    native,
    published,
    s3prl,
    torchaudio,
)
from robustdistiller.upstream.checkpoints.formats.base import Format, Target
from robustdistiller.upstream.pretrained.whisper.recognise import NO_STUDENT, layout_of

#: Every layout, in the order in which they are tried: what has more keys before what has fewer of them.
FORMATS: tuple[Format, ...] = (
    *native.FORMATS,
    *distiller.FORMATS,
    *s3prl.FORMATS,
    *torchaudio.FACTORY_FORMATS,
    *dphubert.FORMATS,
    *armhubert.FORMATS,
    *fairseq.FORMATS,
    *published.FORMATS,
    *huggingface.FORMATS,
    *torchaudio.FORMATS,
)
#: What a checkpoint can be written as, by name.
TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET for module in (native, s3prl, huggingface, published, torchaudio, dphubert)
}
#: Some of what a checkpoint of distill holds.
_TRAINING_STATE = {"model", "progress", "stage", "begins_with"}


def detect(content: Mapping[str, Any]) -> Format:
    """The layout of an opened file.

    Raises:
        ValueError: it is none of :data:`FORMATS`, the message says what was looked for; or it is a model of another
            kind.

    >>> detect({"Config": {}, "Distiller": {}, "Optimizer": {}}).name
    'distiller'
    """
    if layout_of(content):
        raise ValueError(f"it is {NO_STUDENT}")
    for known in FORMATS:
        if known.matches(content):
            return known
    if content.keys() >= _TRAINING_STATE:
        raise ValueError(
            "it is a state of distill's training, which does not say what the student is; expected the student.ckpt "
            "that the run writes at its end: the same command goes on to there"
        )
    keys = [key[:200] for key in content if isinstance(key, str)]
    shown = ", ".join(keys[:12]) + (f" and {len(content) - 12} more" if len(content) > 12 else "")
    if any(key.endswith("feature_projection.projection.weight") for key in keys):
        raise ValueError(f"a Hugging Face state dict without its config.json: put it beside the file (keys: {shown})")
    raise ValueError(
        f"unknown checkpoint format with the keys {shown or '(none)'}. Looked for: {'; '.join(looked_for())}"
    )


def looked_for() -> list[str]:
    """Every layout that is recognised, with whose it is.

    >>> looked_for()[1]
    "distiller: s3prl's Distiller and RobustDistiller: Config, Distiller"
    """
    return [f"{layout.name}: {layout.about}" for layout in FORMATS]

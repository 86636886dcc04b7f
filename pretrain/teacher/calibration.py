"""What a teacher's layers are on some utterances of clean speech: where groups of layers and units are found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import count as count_up

import torch
from lhotse.cut import Cut
from torch import Tensor
from tqdm import tqdm

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, as_cut, choose_by_hash
from robustdistiller.pretrain.data.dataset import SpeechBatches, whole_batches
from robustdistiller.pretrain.objectives import valid_frames
from robustdistiller.pretrain.teacher.protocol import Teacher

logger = logging.getLogger(__name__)

_LONGEST_S = 15.0


def calibrate(
    teacher: Teacher,
    cuts: Sequence[Cut | FileCut],
    count: int,
    layers: Collection[int],
    take: Callable[[list[Tensor], Tensor], None],
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> dict[str, int]:
    """Run a teacher on `count` utterances, in eval mode and without gradients, and leave it as it was.

    The utterances are those whose hash of seed and id is lowest, whatever their order. What cannot be read is passed
    over with a warning. Of each utterance, at most the first 15 s are used.

    Args:
        teacher: a frozen model.
        cuts: speech at 16 kHz.
        count: utterances to draw.
        layers: whose hidden states are wanted.
        take: called for each batch with the states, (B, T, D) each, and the valid frames, (B, T) bool.
        seed: of the draw.
        device: where to compute; `None` is where the teacher is.
        progress: show a progress bar, where the output is a terminal.

    Returns:
        Samples of each utterance that was read, by id.

    Raises:
        SettingsError: no utterance is long enough for a frame, or none can be read.
    """
    one_frame = next(samples for samples in count_up(1) if teacher.num_frames(samples) > 0)
    usable = [cut for cut in cuts if cut.num_samples >= one_frame]
    if not usable:
        raise SettingsError(f"none of {len(cuts)} utterances has the {one_frame} samples that make one frame")
    if len(usable) < count:
        logger.warning("the teacher is looked at on all %d utterances, %d were asked for", len(usable), count)
    drawn = [_beginning(as_cut(cut)) for cut in choose_by_hash(usable, count, salt=f"{seed}\t")]
    home, training, reader = next(teacher.parameters()).device, teacher.training, SpeechBatches()
    device = torch.device(device or home)
    read: dict[str, int] = {}
    try:
        teacher.to(device).eval()
        for request in tqdm(whole_batches(drawn), desc="teacher", unit="batch", disable=None if progress else True):
            batch = reader[request]
            for _, reason in batch.skipped:
                logger.warning("the teacher is looked at without one utterance: %s", reason)
            if not batch.ids:
                continue
            with torch.no_grad():
                output = teacher(batch.waveforms.to(device), batch.lengths, layers=sorted(layers))
                states = [output.hidden_states[layer] for layer in layers]
                take(states, valid_frames(output.frame_lengths, states[0].shape[1]))
            read |= zip(batch.ids, batch.lengths.tolist())
    finally:
        teacher.to(home).train(training)
    if not read:
        raise SettingsError(f"none of the {len(drawn)} utterances drawn from the speech can be read")
    return read


def _beginning(cut: Cut) -> Cut:
    return cut if cut.duration <= _LONGEST_S else cut.truncate(duration=_LONGEST_S, preserve_id=True)

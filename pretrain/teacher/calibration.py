"""What a teacher's layers are on some utterances of clean speech: where groups of layers and units are found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import count as count_up

import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, as_cut, choose_by_hash
from robustdistiller.pretrain.data.reading import read_cut
from robustdistiller.pretrain.objectives import valid_frames
from robustdistiller.pretrain.teacher.protocol import Teacher

logger = logging.getLogger(__name__)

_BATCH_S = 60.0
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
    """Run a teacher on some utterances, in eval mode and without gradients, and leave it as it was.

    What cannot be read is passed over with a warning. Of each utterance, at most the first 15 s are used.

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
    drawn = draw_utterances(cuts, count, seed, one_frame)
    home, training = next(teacher.parameters()).device, teacher.training
    device = torch.device(device or home)
    read: dict[str, int] = {}
    try:
        teacher.to(device).eval()
        for batch in tqdm(_batches(drawn), desc="teacher", unit="batch", disable=None if progress else True):
            audio = _read(batch)
            if not audio:
                continue
            lengths = torch.tensor([len(samples) for samples in audio.values()])
            waveforms = pad_sequence(list(audio.values()), batch_first=True).to(device)
            with torch.no_grad():
                output = teacher(waveforms, lengths, layers=sorted(layers))
                states = [output.hidden_states[layer] for layer in layers]
                take(states, valid_frames(output.frame_lengths, states[0].shape[1]))
            read |= {name: len(samples) for name, samples in audio.items()}
    finally:
        teacher.to(home).train(training)
    if not read:
        raise SettingsError(f"none of the {len(drawn)} utterances drawn from the speech can be read")
    return read


def draw_utterances(cuts: Sequence[Cut | FileCut], count: int, seed: int = 0, min_samples: int = 1) -> list[Cut]:
    """The `count` utterances whose hash of seed and id is lowest, whatever their order; all if there are fewer.

    Args:
        cuts: at 16 kHz.
        count: how many.
        seed: of the hash.
        min_samples: shorter ones are left out.

    Raises:
        SettingsError: no utterance is long enough.
    """
    usable = [cut for cut in cuts if cut.num_samples >= min_samples]
    if not usable:
        raise SettingsError(f"none of {len(cuts)} utterances has the {min_samples} samples that make one frame")
    if len(usable) < count:
        logger.warning("the teacher is looked at on all %d utterances, %d were asked for", len(usable), count)
    return [as_cut(cut) for cut in choose_by_hash(usable, count, salt=f"{seed}\t")]


def _batches(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """Utterances of similar length together, at most a minute with padding."""
    short = [cut if cut.duration <= _LONGEST_S else cut.truncate(duration=_LONGEST_S, preserve_id=True) for cut in cuts]
    batches: list[list[Cut]] = []
    for cut in sorted(short, key=lambda one: (one.num_samples, one.id)):
        if not batches or (len(batches[-1]) + 1) * cut.duration > _BATCH_S:
            batches.append([])
        batches[-1].append(cut)
    return batches


def _read(batch: Sequence[Cut]) -> dict[str, Tensor]:
    audio = {}
    for cut in batch:
        try:
            audio[cut.id] = torch.from_numpy(read_cut(cut))
        except ValueError as error:
            logger.warning("the teacher is looked at without one utterance: %s", error)
    return audio

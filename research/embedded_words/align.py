"""Places the words of known texts in their audio by Whisper's cross-attention, and checks each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from research.embedded_words.texts import digits_spoken, letters, same, spoken, words
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.mini.pack import Utterance, is_speech, read_audio

FRAMES_PER_S = 100
MAX_FRAMES = 3000  # of Whisper's encoder
PADDINGS_S = ((0.0, 1.0), (0.4, 2.0))  # silence before and after: a word that is placed well stays where it is


@dataclass(frozen=True)
class PlacedWord:
    """One word of an utterance and how far its place is to be trusted.

    Attributes:
        utterance: that it is said in.
        position: among the words of the text, from 0.
        word: lower case, as the text spells it.
        start_s, end_s: its place in the utterance.
        moved_s: how far start or end moved when more silence was put before the same audio.
        recognised: the recogniser, which does not know the text, says this word at this place of the sentence.
        probability: of the word's tokens, given the text before them.
    """

    utterance: Utterance
    position: int
    word: str
    start_s: float
    end_s: float
    moved_s: float
    recognised: bool
    probability: float


class Aligner:
    """Whisper as faster-whisper runs it.

    Args:
        folder: a model in CTranslate2's format, with its tokenizer.
    """

    def __init__(self, folder: str) -> None:
        from faster_whisper import WhisperModel  # needed here only, and by nothing that is installed

        self.model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)

    def align(self, utterances: Iterable[Utterance]) -> Iterator[PlacedWord]:
        """The words of each utterance whose text tells what is said; utterances that cannot be placed give none."""
        for utterance, samples in read_audio(utterances):
            text = spoken(utterance.text, utterance.language)
            if text is not None and is_speech(utterance, samples):
                yield from self._place(utterance, text, samples.astype(np.float32) / 32768)

    def _place(self, utterance: Utterance, text: str, waveform: np.ndarray) -> Iterator[PlacedWord]:
        from faster_whisper.tokenizer import Tokenizer

        tokenizer = Tokenizer(self.model.hf_tokenizer, True, task="transcribe", language=utterance.language)
        tokens, expected = tokenizer.encode(f" {text}"), words(text)
        placed = []
        for before_s, after_s in PADDINGS_S:
            padding = [round(seconds * SAMPLE_RATE_HZ) for seconds in (before_s, after_s)]
            mel = self.model.feature_extractor(np.pad(waveform, padding), padding=0)
            mel = mel[:, : min(MAX_FRAMES, mel.shape[1]) // 2 * 2]
            if (before_s + len(waveform) / SAMPLE_RATE_HZ) * FRAMES_PER_S > mel.shape[1]:
                return  # longer than Whisper hears
            encoded = self.model.encode(mel)
            found = self.model.find_alignment(tokenizer, [tokens], encoded, mel.shape[1])[0]
            found = joined(found, expected)
            if not found:
                return
            # The first word always begins where the audio does.
            placed.append([(max(0.0, start - before_s), end - before_s, likely) for start, end, likely in found])
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        most = 2 * (len(tokens) + 8)  # CTranslate2 allows half of what it is given
        heard = self.model.model.generate(encoded, [prompt], beam_size=1, max_length=most)
        heard = digits_spoken(tokenizer.decode(heard[0].sequences_ids[0]), utterance.language)
        matcher = SequenceMatcher(None, [same(one) for one in expected], [same(one) for one in words(heard)], False)
        agreed = {place for block in matcher.get_matching_blocks() for place in range(block.a, block.a + block.size)}
        for position, (word, first, again) in enumerate(zip(expected, *placed)):
            moved_s = max(abs(first[0] - again[0]), abs(first[1] - again[1]))
            yield PlacedWord(utterance, position, word, first[0], first[1], moved_s, position in agreed, first[2])


def joined(units: Sequence[Mapping[str, Any]], expected: Sequence[str]) -> list[tuple[float, float, float]]:
    """Start, end and probability of each expected word, of one or several units of Whisper's (``l`` and ``'appel``).

    Returns:
        Nothing where the units do not make the words.

    >>> units = [{"word": one, "start": at, "end": at + 1, "probability": 0.5} for at, one in enumerate((" I", "'m."))]
    >>> joined(units, ["i'm"])
    [(0.0, 2.0, 0.5)]
    """
    left, places = [unit for unit in units if letters(unit["word"])], []
    for word in expected:
        parts, said = [], ""
        while left and said != letters(word) and letters(word).startswith(said + letters(left[0]["word"])):
            parts.append(left.pop(0))
            said += letters(parts[-1]["word"])
        if said != letters(word):
            return []
        likely = min(float(part["probability"]) for part in parts)
        places.append((float(parts[0]["start"]), float(parts[-1]["end"]), likely))
    return [] if left else places

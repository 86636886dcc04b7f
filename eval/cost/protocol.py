"""SUPERB's profiling protocol: 32 utterances of LibriSpeech test-clean, one at a time, MACs added up.

Source: the challenge's profiler (github.com/B06901052/DeepSpeed, branch superb-challenge, its README and
``testing/s3prl_profiling_test.py``): test-clean sorted by length, every 82nd utterance from the first on. The list with
its lengths is there, so that MACs, which depend on lengths only, need no corpus. The README prints 1 669 156 022 848
MACs for HuBERT Base; this package's count from the configuration gives 99.8 % of it.
"""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
from torch import Tensor

from robustdistiller.common.audio import SAMPLE_RATE_HZ

#: Utterance to its number of samples.
UTTERANCES: dict[str, int] = {
    "672-122797-0033": 20560,
    "4446-2275-0025": 34560,
    "7176-92135-0019": 38480,
    "2094-142345-0019": 42560,
    "1221-135767-0015": 45600,
    "61-70970-0010": 48720,
    "8463-294825-0015": 52000,
    "1089-134686-0035": 55120,
    "1995-1836-0012": 59120,
    "8555-284449-0006": 62720,
    "121-127105-0036": 66400,
    "237-126133-0012": 71200,
    "7176-88083-0005": 75200,
    "3575-170457-0051": 78640,
    "7176-92135-0044": 82800,
    "5142-33396-0059": 87520,
    "260-123286-0009": 92720,
    "2830-3980-0023": 98560,
    "2830-3980-0010": 104400,
    "4970-29095-0016": 111120,
    "260-123286-0006": 118480,
    "2961-961-0016": 125040,
    "61-70968-0010": 132720,
    "8455-210777-0069": 142640,
    "908-157963-0023": 154000,
    "4992-23283-0020": 166720,
    "4507-16021-0009": 180880,
    "1320-122617-0036": 197920,
    "672-122797-0002": 217920,
    "8463-294828-0035": 239280,
    "2300-131720-0003": 268160,
    "3729-6852-0045": 326000,
}
AUDIO_S = sum(UTTERANCES.values()) / SAMPLE_RATE_HZ


def noise(samples: int, seed: int = 0) -> Tensor:
    """White noise at a level of speech, ``(samples,)``."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def utterance(name: str, librispeech: Path | str | None = None) -> Tensor:
    """One of the 32 utterances; noise of its length where there is no corpus.

    Raises:
        FileNotFoundError: the corpus lacks the file.
        ValueError: the file has another length or rate than the protocol's.
    """
    samples = UTTERANCES[name]
    if librispeech is None:
        return noise(samples, seed=samples)
    speaker, chapter, _ = name.split("-")
    path = Path(librispeech) / "test-clean" / speaker / chapter / f"{name}.flac"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; give the folder of LibriSpeech that holds test-clean/")
    audio, rate_hz = soundfile.read(path, dtype="float32")
    if (len(audio), rate_hz) != (samples, SAMPLE_RATE_HZ):
        raise ValueError(
            f"{path} has {len(audio)} samples at {rate_hz} Hz; the protocol's has {samples} at {SAMPLE_RATE_HZ} Hz, "
            "so this is another version of LibriSpeech"
        )
    return torch.from_numpy(audio)

"""The corpora of SUPERB's tasks: where they come from, under which terms, and how many files the official ones have.

A count is stated only where a source for it is known; `Corpus.counts_source` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Corpus:
    """One corpus.

    Attributes:
        name: as people call it.
        source: where it can be had.
        terms: licence, and whether one has to register.
        size: what to expect on disk or in the download, in words; empty where not known.
        counts: number of items by part, of the official corpus.
        counts_source: where these numbers were published.
    """

    name: str
    source: str
    terms: str
    size: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    counts_source: str = ""


LIBRISPEECH = Corpus(
    name="LibriSpeech",
    source="openslr.org/12: train-clean-100, dev-clean, test-clean (and test-other)",
    terms="CC BY 4.0",
    size="7 GB to download",
    counts={
        "train-clean-100": 28_539,
        "train-clean-360": 104_014,
        "train-other-500": 148_688,
        "dev-clean": 2_703,
        "dev-other": 2_864,
        "test-clean": 2_620,
        "test-other": 2_939,
    },
    counts_source="the files in the release",
)
LIBRISPEECH_LEXICA = Corpus(
    name="s3prl's lexica for LibriSpeech",
    source="librispeech-lexicon-200k-g2p.txt and librispeech-lexicon-allothers-g2p.txt, in s3prl's repository below "
    "s3prl/downstream/ctc/lexicon (with git lfs), or huggingface.co/datasets/s3prl/g2p below lexicon",
    terms="Apache 2.0, as s3prl",
)
LIBRISPEECH_LM = Corpus(
    name="LibriSpeech's 4-gram language model",
    source="openslr.org/11: 4-gram.arpa.gz",
    terms="public domain",
    size="1.3 GB to download",
)
SPEECH_COMMANDS = Corpus(
    name="Speech Commands v0.01",
    source="download.tensorflow.org/data: speech_commands_v0.01.tar.gz, speech_commands_test_set_v0.01.tar.gz",
    terms="CC BY 4.0",
    size="1.5 GB to download",
    counts={"words": 64_721, "background": 6, "test": 3_081},
    counts_source="P. Warden, arXiv 1804.03209 (64,727 files with the background noise); SUPERB's test set",
)
FLUENT_SPEECH_COMMANDS = Corpus(
    name="Fluent Speech Commands",
    source="fluent.ai, Fluent Speech Commands: a dataset for spoken language understanding research",
    terms="its own licence, for research; asks for a form",
    counts={"train": 23_132, "valid": 3_118, "test": 3_793},
    counts_source="L. Lugosch et al., arXiv 1904.03670",
)
VOXCELEB1 = Corpus(
    name="VoxCeleb1",
    source="robots.ox.ac.uk/~vgg/data/voxceleb: vox1_dev_wav (four parts), vox1_test_wav",
    terms="see its page; access on request",
    size="about 30 GB to download",
    counts={"dev": 148_642, "test": 4_874, "split 1": 138_361, "split 2": 6_904, "split 3": 8_251, "trials": 37_720},
    counts_source="A. Nagrani et al., arXiv 1706.08612, and the lists on its page",
)
IEMOCAP = Corpus(
    name="IEMOCAP",
    source="sail.usc.edu/iemocap",
    terms="for research; needs a signed form",
    counts={"fold1": 1_085, "fold2": 1_023, "fold3": 1_151, "fold4": 1_031, "fold5": 1_241},
    counts_source="its four usual classes, excited counted as happy: 5,531 utterances, as in SUPERB",
)
AUDIO_SNIPS = Corpus(
    name="Audio SNIPS",
    source="the preprocessed release that s3prl's SUPERB documentation links (SNIPS.zip with wav files, "
    "all.iob.snips.txt and slots.txt); the mp3 files it was made from: audio_slu_v3.zip of "
    "github.com/aws-samples/aws-lex-noisy-spoken-language-understanding",
    terms="see its repository",
    counts={"train": 104_672, "valid": 2_800, "test": 2_800, "slots": 39},
    counts_source="13,084, 700 and 700 sentences by 8, 4 and 4 voices, as s3prl's preparation asserts",
)
QUESST14 = Corpus(
    name="QUESST 2014",
    source="speech.fit.vutbr.cz: quesst14Database.tgz",
    terms="see its page",
)
LIBRI2MIX = Corpus(
    name="Libri2Mix",
    source="made from LibriSpeech and WHAM! noise by the scripts of github.com/s3prl/LibriMix "
    "(generate_librimix_sd.sh for SD, generate_librimix_ss.sh for SS)",
    terms="CC BY 4.0 (LibriSpeech), CC BY-NC 4.0 (WHAM! noise)",
    size="430 GB for everything the scripts can make, of which a task needs one rate, mode and type",
    counts={"train": 13_900, "dev": 3_000, "test": 3_000},
    counts_source="J. Cosentino et al., arXiv 2005.11262",
)
LIBRI2MIX_SPEECH_TIMES = Corpus(
    name="times of speech in LibriSpeech",
    source="github.com/s3prl/LibriMix: metadata/LibriSpeech/{train_clean_100,dev_clean,test_clean}.rttm",
    terms="MIT, as LibriMix",
)
VOICEBANK_DEMAND = Corpus(
    name="VoiceBank-DEMAND",
    source="datashare.ed.ac.uk/handle/10283/2791: clean_ and noisy_, trainset_28spk_wav and testset_wav",
    terms="CC BY 4.0",
    counts={"train": 10_802, "dev": 770, "test": 824},
    counts_source="C. Valentini-Botinhao: 11,572, of which 770 by the development speakers p226 and p287, and 824",
)
COVOST2 = Corpus(
    name="CoVoST 2, English to German",
    source="Common Voice Corpus 4 (commonvoice.mozilla.org) and github.com/facebookresearch/covost",
    terms="CC0",
)

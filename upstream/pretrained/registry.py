"""The models that are known by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RELEASED = "Hguimaraes/robustdistiller"
_DPHUBERT = "pyf98/DPHuBERT"


@dataclass(frozen=True)
class RegisteredModel:
    """A known model. What nobody stated is None.

    Attributes:
        about: what it is.
        repository: on the Hugging Face Hub; empty for what ships with this package.
        file: the one file in it, or of this package, that is the model; None for a whole repository, read as a Hugging
            Face folder.
        revision: branch, tag or commit.
        sha256: of the file, where its publisher states it.
        licence: of the weights.
        size_mb: to be downloaded, in megabytes.
        teacher: what it was distilled from.

    Example:
        >>> MODELS["dpwavlm"].url
        'https://huggingface.co/pyf98/DPHuBERT/resolve/main/DPWavLM-sp0.75.pth'
    """

    about: str
    repository: str = ""
    file: str | None = None
    revision: str = "main"
    sha256: str | None = None
    licence: str | None = None
    size_mb: float | None = None
    teacher: str | None = None

    @property
    def url(self) -> str:
        """Where the file or the repository is; empty for what ships with this package."""
        page = f"https://huggingface.co/{self.repository}" if self.repository else ""
        return f"{page}/resolve/{self.revision}/{self.file}" if page and self.file else page


#: Known models by name; those with a slash are names on the Hub.
MODELS = {
    "robustdistiller_mini": RegisteredModel(
        *("small teacher that ships with this package, distilled from Whisper base", "", "teacher.ckpt"),
        licence="Apache-2.0",
        size_mb=9.0,
    ),
    "robustdistiller_mini_student": RegisteredModel(
        *("small student that ships with this package, by the recipe ours", "", "student.ckpt"),
        licence="Apache-2.0",
        size_mb=4.3,
        teacher="robustdistiller_mini",
    ),
    "robustdistiller_hubert": RegisteredModel(
        "RobustDistiller student (arXiv 2302.09437)", _RELEASED, "rd_hubert.ckpt", size_mb=363, teacher="HuBERT Base"
    ),
    "robustdistiller_wavlm": RegisteredModel(
        "RobustDistiller student (arXiv 2302.09437)", _RELEASED, "rd_wavlm.ckpt", size_mb=363, teacher="WavLM Base+"
    ),
    "robustdistiller_robust_hubert": RegisteredModel(
        *("RobustDistiller student (arXiv 2302.09437)", _RELEASED, "rd_rhubert.ckpt"),
        size_mb=363,
        teacher="Robust HuBERT",
    ),
    "robustdistiller_dpwavlm": RegisteredModel(
        *("RobustDistiller student in DPWavLM's shape (arXiv 2403.08654)", _RELEASED, "RDDPWavLM-sp0.75.pth"),
        size_mb=99,
        teacher="WavLM Base+",
    ),
    "dphubert": RegisteredModel(
        *("DPHuBERT, pruned and distilled (arXiv 2305.17651)", _DPHUBERT, "DPHuBERT-sp0.75.pth"),
        sha256="384d72429163b79cd9f4deaf41aa2cbc990e7526b4430f2a22d40c5e70c14be7",
        teacher="HuBERT Base",
    ),
    "dpwavlm": RegisteredModel(
        *("DPWavLM, pruned and distilled (arXiv 2305.17651)", _DPHUBERT, "DPWavLM-sp0.75.pth"),
        sha256="932dff02604b20dc3392ea8962f5940b9ac52b01948db68afae036dd6eaa94c1",
        teacher="WavLM Base+",
    ),
    **{
        # Licences and sizes of the weights as their pages on the Hub state them; WavLM's state none.
        repository: RegisteredModel(about, repository, licence=licence, size_mb=size_mb)
        for repository, about, licence, size_mb in (
            ("facebook/hubert-base-ls960", "HuBERT Base", "Apache-2.0", None),
            ("facebook/hubert-large-ll60k", "HuBERT Large", "Apache-2.0", 1260),
            ("facebook/wav2vec2-base", "wav2vec 2.0 Base", None, None),
            ("facebook/wav2vec2-large-lv60", "wav2vec 2.0 Large", "Apache-2.0", 1260),
            ("facebook/wav2vec2-xls-r-300m", "XLS-R, multilingual", "Apache-2.0", 1270),
            ("facebook/data2vec-audio-base", "data2vec Base", "Apache-2.0", None),
            ("microsoft/wavlm-base", "WavLM Base", None, None),
            ("microsoft/wavlm-base-plus", "WavLM Base+", None, None),
            ("microsoft/wavlm-large", "WavLM Large", None, None),
            (
                "openai/whisper-base",
                "Whisper Base, of which the encoder is read (teacher, upstream)",
                "Apache-2.0",
                None,
            ),
            ("utter-project/mHuBERT-147", "mHuBERT-147, multilingual", "CC-BY-NC-SA-4.0", 378),
        )
    },
    "ntu-spml/distilhubert": RegisteredModel(
        "DistilHuBERT", "ntu-spml/distilhubert", licence="Apache-2.0", teacher="HuBERT Base"
    ),
}


def copy_variable(name: str) -> str:
    """The environment variable that may name a local copy of a registered model.

    Example:
        >>> copy_variable("robustdistiller_wavlm")
        'ROBUSTDISTILLER_WAVLM_CKPT'
    """
    return re.sub(r"\W", "_", name).upper() + "_CKPT"

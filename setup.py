"""Installs the folders of this repository as the single import name ``robustdistiller``.

The rooms keep their short folder names (``upstream/``, ``eval/`` ...) in the repository, but are never installed under
those names: top-level ``upstream`` and ``pretrain`` would collide with s3prl's, ``eval`` with a builtin.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

FRONT_DOOR = Path(__file__).with_name("robustdistiller") / "__init__.py"
ROOMS = ["common", "upstream", "acoustics", "pretrain", "eval", "mini", "cli"]
DATA_ROOMS = {"downstream_configs": ["*.yaml", "**/*"], "results": ["**/*"]}

# The front door, and the rooms beside it.
package_dir = {
    "robustdistiller": "robustdistiller",
    **{f"robustdistiller.{room}": room for room in [*ROOMS, *DATA_ROOMS]},
}
packages = list(package_dir)
for room in ROOMS:
    packages += [f"robustdistiller.{room}.{sub}" for sub in find_packages(room)]

# What using a student needs: load, convert, inspect, extract features.
CORE = [
    "torch>=2.8",
    "numpy",
    "scipy",  # filters of audio and of corruption
    "soundfile>=0.12",
    "soxr",
    "safetensors",
    "huggingface_hub",
    "filelock>=3.30",  # lock_descriptor
    "pydantic>=2.11",  # settings
    "PyYAML",
    "typer>=0.19",  # choices as literals
    "rich",
    "tqdm",
    "lazy_loader",
]
# Everything that s3prl's SUPERB downstreams import, whichever of the two packages brings s3prl, and what makes tables.
# s3prl itself declares hardly any of it; each line names who needs it.
SUPERB = [
    "torchaudio",  # s3prl only: the bridge loads it without its C++ library where that does not fit torch
    "tensorboardX",  # the runner: every task
    "librosa",  # SID, ASV, SE, SS
    "scikit-learn",  # ASV
    "editdistance",  # ASR, PR, SF
    "joblib",  # SID, ASV
    "h5py",  # SD, SE, SS
    "dtw-python",  # QbE
    "lxml",  # QbE
    "pandas",  # IC, ASR, SD; tables
    "jinja2",  # pages
    "matplotlib",  # plots
    "psutil",  # memory: profiles, sweeps
    "cloudpickle",  # jobs of sweeps
]
TRAIN = ["lightning-fabric>=2.5", "lhotse>=1.28", "tensorboard", "pandas", "matplotlib", "jinja2", "scikit-learn"]
EXPORT = ["onnx>=1.17", "onnxruntime>=1.19", "onnxscript>=0.4"]
SLURM = ["submitit>=1.5"]
EXTRAS = {
    "superb": ["s3prl>=0.4.18", *SUPERB],  # train and score SUPERB heads, tables, leaderboards
    "superb-espnet": ["espnet-s3prl", *SUPERB],  # the same with ESPnet's fork of s3prl in its place
    "train": TRAIN,  # distillation
    "metrics": ["pesq", "pystoi"],  # SE and SS; apart because pesq has to be compiled
    "export": EXPORT,  # ONNX files
    "slurm": SLURM,  # sweeps on a cluster
    "rooms": ["pyroomacoustics"],  # simulate new rooms
    "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],  # the pages as a site
}
EXTRAS["dev"] = [
    *("pytest>=8", "pytest-xdist", "ruff", "mypy>=1.18", "types-PyYAML", "packaging", "transformers"),
    *(
        requirement
        for extra in ("superb", "train", "metrics", "export", "slurm", "docs")
        for requirement in EXTRAS[extra]
    ),
]

setup(
    name="robustdistiller",
    version=re.search(r'__version__ = "(.+)"', FRONT_DOOR.read_text(encoding="utf-8"))[1],
    description="Small speech encoders that survive noise and reverberation, as s3prl upstreams, measured on SUPERB",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    package_dir=package_dir,
    packages=packages,
    package_data={
        "": ["py.typed", "*.pyi"],
        "robustdistiller.pretrain": ["recipes/*.yaml"],
        "robustdistiller.common.page": ["*.html", "*.css"],
        "robustdistiller.acoustics.listening": ["*.html"],
        "robustdistiller.pretrain.page": ["*.html"],
        "robustdistiller.eval.report.page": ["*.html", "*.css", "*.js"],
        "robustdistiller.mini": ["data/**/*", "data/*", "teacher/*"],
        **{f"robustdistiller.{room}": patterns for room, patterns in DATA_ROOMS.items()},
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "robustdistiller=robustdistiller.cli.main:main",
            "run_downstream.py=robustdistiller.cli.main:run_downstream",
        ]
    },
)

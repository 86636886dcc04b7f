"""Installs the folders of this repository as the single import name ``robustdistiller``.

The rooms keep their short folder names (``upstream/``, ``eval/`` ...) in the repository, but are never installed under
those names: top-level ``upstream`` and ``pretrain`` would collide with s3prl's, ``eval`` with a builtin.
"""

from setuptools import find_packages, setup

ROOMS = ["upstream", "acoustics", "pretrain", "eval", "mini", "bench", "cli"]
DATA_ROOMS = {"downstream_configs": ["*.yaml", "**/*"], "results": ["**/*"]}

package_dir = {f"robustdistiller.{room}": room for room in [*ROOMS, *DATA_ROOMS]}
packages = list(package_dir)
for room in ROOMS:
    packages += [f"robustdistiller.{room}.{sub}" for sub in find_packages(room)]

# s3prl 0.4.18 installs without most of what its SUPERB downstreams import; each line names who needs it.
SUPERB = [
    "s3prl==0.4.18",
    "tensorboardX",  # the runner: every task
    "transformers",  # imported by s3prl's hub
    "librosa",  # SID, ASV, SE, SS
    "scikit-learn",  # ASV
    "editdistance",  # ASR, PR, SF
    "joblib",  # SID, ASV
    "h5py",  # SD, SE, SS
    "dtw-python",  # QbE
    "lxml",  # QbE
]

setup(
    name="robustdistiller",
    version="0.1.0",
    description="Small speech encoders that survive noise and reverberation, as s3prl upstreams, measured on SUPERB",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    package_dir=package_dir,
    packages=packages,
    package_data={
        "robustdistiller.pretrain": ["recipes/*.yaml"],
        "robustdistiller.eval.leaderboard": ["page.html", "*.css", "*.js"],
        "robustdistiller.mini": ["data/**/*", "data/*", "teacher/*", "recipes/*.yaml"],
        **{f"robustdistiller.{room}": patterns for room, patterns in DATA_ROOMS.items()},
    },
    install_requires=[
        "torch>=2.8,<2.12",
        "torchaudio>=2.8,<2.12",
        "numpy",
        "scipy",
        "pandas",
        "soundfile>=0.12",
        "filelock",
        "safetensors",
        "PyYAML",
        "matplotlib",
        "rich",
        "typer",
        "tqdm",
        "packaging",
        # training
        "lightning>=2.5",
        "lhotse>=1.28",
        "tensorboard",
        *SUPERB,
    ],
    extras_require={
        "metrics": ["pesq", "pystoi"],  # SE, SS
        "export": ["onnx>=1.17", "onnxruntime>=1.19", "onnxscript>=0.4"],  # ONNX files
        "slurm": ["submitit>=1.5"],  # sweeps on a cluster
        "rooms": ["pyroomacoustics"],  # simulate new rooms
        "dev": ["pytest>=8", "pytest-xdist", "ruff"],
    },
    entry_points={
        "console_scripts": [
            "robustdistiller=robustdistiller.cli.main:main",
            "run_downstream.py=robustdistiller.eval.launcher:main",
        ]
    },
)

"""Trains the mini teacher that ships with the repository.

    python -m robustdistiller.mini.train_teacher --pool FOLDER --work FOLDER --out mini/teacher

Two stages: a log-mel-input transformer by masked prediction of MFCC clusters (`mel_stage`), then the project's speech
encoder, which regresses the first model's layers and predicts the clusters (`conv_stage`). Without `--pool` only the
shipped training utterances are used. Dev and test utterances of every pack are left out. One thread is fastest where
other work runs on the machine. Interrupted and started again with the same `--work`, it goes on.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from research.mini_teacher.conv_stage import train_conv
from research.mini_teacher.corpus import data_dir
from research.mini_teacher.labels import mfcc_labels
from research.mini_teacher.mel_stage import train_mel
from research.mini_teacher.pool import build_pool
from research.mini_teacher.steps import LogFile


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options; the defaults are those of the shipped teacher."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pool", type=Path, nargs="*", default=[], help="more speech packs (folders with speech.tsv)")
    parser.add_argument("--work", type=Path, required=True, help="cache and training state; give it again to resume")
    parser.add_argument("--out", type=Path, default=Path("mini/teacher"), help="where teacher.ckpt and log.csv go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mel-steps", type=int, default=2400)
    parser.add_argument("--conv-steps", type=int, default=6500)
    parser.add_argument("--mel-lr", type=float, default=1.5e-3)
    parser.add_argument("--conv-lr", type=float, default=1.2e-3)
    parser.add_argument("--num-clusters", type=int, default=100, help="k-means clusters over MFCCs")
    parser.add_argument("--feature-clusters", type=int, default=200, help="k-means clusters over stage 1 features")
    parser.add_argument(
        "--mask-probability", type=float, default=0.05, help="share of frames at which a masked span starts"
    )
    parser.add_argument("--spectral-weight", type=float, default=1.0, help="of the spectral targets of stage 2")
    parser.add_argument("--init", type=Path, help="start stage 2 from this checkpoint instead of at random")
    parser.add_argument("--batch-samples", type=int, default=288_000, help="samples per step (18 s)")
    parser.add_argument("--crop-samples", type=int, default=48_000, help="samples per crop (3 s)")
    parser.add_argument("--short-share", type=float, default=0.1, help="share of batches made of isolated syllables")
    parser.add_argument("--syllable-share", type=float, default=0.05, help="share of crops that start in a syllable")
    parser.add_argument("--shipped-share", type=float, default=0.25, help="share of crops from other shipped speech")
    parser.add_argument("--save-every", type=int, default=250, help="steps between saved states of the second stage")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> Path:
    """Runs both stages and returns the path of the teacher's checkpoint."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    pool = build_pool([data_dir(), *options.pool], options.work, options.syllable_share, options.shipped_share)
    labels = mfcc_labels(pool, options.num_clusters, options.work, options.seed)
    log = LogFile(options.out / "log.csv")
    mel = train_mel(pool, labels, options, options.work, log)
    return train_conv(pool, labels, mel, options, log)


if __name__ == "__main__":
    main()

"""The command line: `python -m research.embedded_noise FOLDER`, with the packages unpacked by `fetch.sh`."""

from __future__ import annotations

import argparse
import logging
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

from research.embedded_noise.cut import cut, measures
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import Row, read_table

logger = logging.getLogger(__name__)

PIECES = Path(__file__).with_name("pieces.tsv")
GAP = 800  # samples between pieces, as in the other recordings
_OPUS_32_KBPS = 0.896  # libsndfile: 6 kbit/s at 1, 256 at 0


def main(argv: list[str] | None = None) -> None:
    """Writes the recordings `continuous-SPLIT.ogg` and their rows of `noise.tsv`, in place of those it has."""
    parser = argparse.ArgumentParser(prog="python -m research.embedded_noise", description=main.__doc__)
    parser.add_argument("packages", type=Path, help="folder that fetch.sh unpacked the packages to")
    parser.add_argument("--out", type=Path, default=data_dir(), help="default: %(default)s")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = make(options.packages, options.out / "noise", read_table(PIECES))
    table = options.out / "noise.tsv"
    kept = [row for row in read_table(table) if not row["file"].startswith("continuous-")]
    rows = sorted([*kept, *made], key=lambda row: (row["file"], int(row["offset_samples"])))
    write_text(table, "\n".join("\t".join(row) for row in [list(rows[0]), *(row.values() for row in rows)]) + "\n")


def make(packages: Path, folder: Path, parts: list[Row]) -> list[Row]:
    """Writes one recording for each split and returns the rows of `noise.tsv` that say where its pieces lie."""
    rows: list[Row] = []
    for split in ("train", "test"):
        file, audio, end = f"continuous-{split}.ogg", [], 0
        of_split = [part for part in parts if part["split"] == split]
        for (package, name), group in groupby(of_split, key=lambda part: (part["package"], part["name"])):
            piece = cut(packages, list(group))
            rows.append(
                {
                    "file": file,
                    "offset_samples": str(end),
                    "num_samples": str(len(piece)),
                    "name": f"{package}__{name}.flac",
                    "kind": "noise",
                    "split": split,
                    "source": package,
                }
            )
            audio += [piece, np.zeros(GAP, np.float32)]
            end += len(piece) + GAP
            logger.info("%s %s %.1f s %s", split, rows[-1]["name"], len(piece) / SAMPLE_RATE_HZ, measures(piece))
        if audio:
            soundfile.write(folder / file, np.concatenate(audio), SAMPLE_RATE_HZ, format="OGG", subtype="OPUS",
                            compression_level=_OPUS_32_KBPS)  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())

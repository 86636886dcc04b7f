"""The command line: `python -m research.embedded_words align --whisper FOLDER TABLE`, then `choose TABLE`."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from research.embedded_words.align import Aligner, PlacedWord
from research.embedded_words.choose import Choice, choose
from research.embedded_words.texts import DIGITS
from robustdistiller.common.files import write_text
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import PROMPT_VOICES, Row, read_pack, read_table

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Writes the table of all placed words, or the shipped one of those that were chosen."""
    parser = argparse.ArgumentParser(prog="python -m research.embedded_words", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    align = commands.add_parser("align", help="place the words of the prompts' texts (10 minutes of one core)")
    align.add_argument("--whisper", required=True, help="folder of a Whisper model in CTranslate2's format")
    align.add_argument("--language", action="append", choices=list(DIGITS), help="repeatable; default: all")
    align.add_argument("table", type=Path, help="to write")
    choice = commands.add_parser("choose", help="choose the words of the task")
    choice.add_argument("table", type=Path, nargs="+", help="that align wrote")
    choice.add_argument("--out", type=Path, default=data_dir() / "words.tsv", help="default: %(default)s")
    for field in fields(Choice):
        choice.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    utterances = [one for one in read_pack(data_dir()) if one.language in DIGITS and one.voice in PROMPT_VOICES]
    if options.command == "align":
        wanted = [one for one in utterances if one.language in (options.language or DIGITS)]
        _write(options.table, [_row(word) for word in Aligner(options.whisper).align(wanted)])
        return
    rules = Choice(**{field.name: getattr(options, field.name) for field in fields(Choice)})
    placed = [row for table in options.table for row in read_table(table)]
    chosen, left_out = choose(placed, utterances, rules)
    _write(options.out, chosen)
    logger.info("%d of %d words; left out: %s", len(chosen), len(placed), dict(left_out))


def _row(placed: PlacedWord) -> Row:
    return {
        "utterance_id": placed.utterance.utterance_id,
        "position": str(placed.position),
        "word": placed.word,
        "start_s": f"{placed.start_s:.2f}",
        "end_s": f"{placed.end_s:.2f}",
        "moved_s": f"{placed.moved_s:.2f}",
        "recognised": str(int(placed.recognised)),
        "probability": f"{placed.probability:.3f}",
    }


def _write(path: Path, rows: list[Row]) -> None:
    lines = ["\t".join(row) for row in (rows[0], *(row.values() for row in rows))]
    write_text(path, "\n".join(lines) + "\n")
    logger.info("%s: %d rows", path, len(rows))


if __name__ == "__main__":
    sys.exit(main())

"""Tables in the terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from robustdistiller.cli.table import show_tables
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import example_record


def test_no_digit_is_lost_on_a_narrow_terminal(tmp_path: Path) -> None:
    conditions = ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10"]
    for condition in conditions:
        write_record(tmp_path / "records", example_record(condition=condition, label="an upstream of long name"))
    printed = io.StringIO()
    show_tables([tmp_path / "records"], tmp_path, Console(file=printed, width=40))
    assert printed.getvalue().count("75.0 ±23.6") == len(conditions)

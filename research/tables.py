"""Tables of the reports, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        header: the text of the first line's cells.
        rows: the texts of the other lines' cells, as many in each.

    Example:
        >>> print(markdown_table(["task", "score"], [["words", "71.5"]]))
        | task | score |
        | --- | --- |
        | words | 71.5 |
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))

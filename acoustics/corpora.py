"""Corpora of noise and rooms by what they are used for: a purpose, some classes, a held-out part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from robustdistiller.common.names import did_you_mean, refuse_unknown

from .layouts import LAYOUTS, PURPOSES
from .listing import Piece, list_pieces

SPLITS = ("all", "train", "dev", "test")


def split_of(group: str) -> str:
    """The part of a corpus without official parts that a group of recordings belongs to.

    It depends on the name only (SHA-256), so everyone holds out the same: 20 % of the groups are ``test``, 10 %
    ``dev``.

    >>> [split_of(f"room-{number}") for number in range(4)]
    ['train', 'test', 'train', 'dev']
    >>> sum(split_of(f"room-{number}") == "test" for number in range(1000))
    230
    """
    tenth = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 10
    return "test" if tenth < 2 else "dev" if tenth == 2 else "train"


def corpus_pieces(
    path: str | Path,
    purpose: str = "noise",
    kind: str | None = None,
    split: str = "all",
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> list[Piece]:
    """The recordings of a corpus that serve a purpose.

    Known layouts (`kind`), found by themselves when `kind` is None:

    - ``musan``: of ``noise/``, ``music/`` and ``speech/`` the first, for babble the last; `only` names others;
    - ``urbansound8k``: classes by name, ``split=test`` is fold 10, ``dev`` fold 9;
    - ``esc50``: classes by name, ``split=test`` is fold 5, ``dev`` fold 4;
    - ``fsd50k``: labels by name, ``split=test`` is the evaluation set, ``dev`` the validation part of the other;
    - ``demand``: the first of 16 channels; labels are the environments, ``split=test`` those of the test set of
      VoiceBank-DEMAND;
    - ``wham``: ``tr``, ``cv`` and ``tt`` are ``train``, ``dev`` and ``test``;
    - ``chime``: CHiME-3 and CHiME-4 backgrounds, the first channel there is; labels are the environments;
    - ``openslr28``: ``RIRS_NOISES``: ``simulated`` and ``real`` responses, or ``pointsource`` and ``isotropic`` noises;
      parts keep rooms together;
    - ``dns``: the DNS challenge's ``impulse_responses`` (SLR26, SLR28) or noise folder;
    - ``folder``: all audio of a folder, a file, or a ``.tsv`` manifest.

    Where a corpus has no official parts, `split_of` divides it, originals, sessions and rooms kept together; a plain
    folder with a subfolder called ``train``, ``dev`` or ``test`` has the parts that it has, and what lies beside
    them is for training unless there is a ``train``.

    Args:
        path: where the corpus lies.
        purpose: ``noise``, ``rir`` or ``speech`` (to mix babble from).
        kind: a layout by name.
        split: ``all``, ``train``, ``dev`` or ``test``.
        only: keep recordings with one of these labels.
        without: leave out recordings with one of these labels.

    Raises:
        FileNotFoundError: `path` does not exist or holds no audio.
        ValueError: unknown layout, part or label; a corpus that does not serve the purpose; nothing is left.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("tr/a.wav", "tt/b.wav"):
    ...     (folder / name).parent.mkdir()
    ...     (folder / name).touch()
    >>> [piece.name for piece in corpus_pieces(folder, split="test")]
    ['tt/b.wav']
    """
    path = Path(path)
    refuse_unknown([] if kind is None else [kind], LAYOUTS, "kind of corpus")
    refuse_unknown([split], SPLITS, "split")
    refuse_unknown([purpose], PURPOSES, "purpose")
    kind = kind or detect_layout(path)
    if purpose not in LAYOUTS[kind].serves:
        raise ValueError(
            f"{path} ({kind}) has nothing that serves as {purpose}, it has {' and '.join(LAYOUTS[kind].serves)}; "
            "kind=folder takes everything in it"
        )
    pieces = {piece.name: piece for piece in list_pieces(path)}
    items = LAYOUTS[kind].items(path, list(pieces), purpose, split)
    if not items:
        raise ValueError(
            f"{path} holds nothing that serves as {purpose} in the layout of {kind!r}; known: {', '.join(LAYOUTS)}"
        )
    labels = sorted({label for item in items for label in item.labels})
    for label in (*only, *without):
        if label not in labels:
            raise ValueError(f"{path} ({kind}) has no label {label!r}{did_you_mean(label, labels)}")
    if not only and LAYOUTS[kind].default is not None:
        only = [label for label in LAYOUTS[kind].default(purpose) if label in labels]
    kept = [
        item
        for item in items
        if (not only or set(only) & set(item.labels))
        and not set(without) & set(item.labels)
        and split in ("all", item.split or split_of(item.group))
    ]
    if not kept:
        chosen = ", ".join(
            f"{what}={value}" for what, value in (("split", split), ("only", only), ("without", without)) if value
        )
        raise ValueError(f"nothing of the {len(items)} recordings in {path} ({kind}) is left with {chosen}")
    return [pieces[item.name] for item in kept]


def detect_layout(path: str | Path) -> str:
    """The layout of what lies at a path: a key of `LAYOUTS`; ``folder`` for everything else.

    >>> detect_layout("/no/such/folder")
    'folder'
    """
    path = Path(path)
    if not path.is_dir():
        return "folder"
    return next((kind for kind, layout in LAYOUTS.items() if layout.is_here(path)), "folder")

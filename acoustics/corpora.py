"""Corpora of noise and rooms by what they are used for: a purpose, some classes, a held-out part."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.names import did_you_mean, refuse_unknown

from .audio.listing import Piece, list_pieces
from .layouts import LAYOUTS, PURPOSES, Item

SPLITS = ("all", "train", "dev", "test", "training")
_LEVELS = 3  # so far above or below a folder a corpus is looked for
_MOST_FOLDERS = 1000  # with more, a folder is no collection of corpora, and looking into each takes a while


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
    pieces: Sequence[Piece] | None = None,
) -> list[Piece]:
    """The recordings of a corpus that serve a purpose.

    Known layouts (`kind`), found by themselves when `kind` is None, in the folder, around it (`path` is a part of a
    corpus) and in it (`path` holds several):

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
        split: ``all``, ``train``, ``dev`` or ``test``; ``training``: ``train`` where the corpus or the folder says what
            that is, and all of it otherwise.
        only: keep recordings with one of these labels.
        without: leave out recordings with one of these labels.
        pieces: what `list_pieces` found at `path`, where that is known.

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
    pieces = list_pieces(path) if pieces is None else pieces
    named = {piece.name: piece for piece in pieces}
    if len(named) < len(pieces):
        twice = next(name for name, times in Counter(piece.name for piece in pieces).items() if times > 1)
        raise ValueError(f"{path}: {twice!r} occurs twice; every recording needs a name of its own")
    corpora = [Corpus(kind, path, {name: name for name in named})] if kind else _divide(path, list(named))
    serving = [corpus for corpus in corpora if purpose in LAYOUTS[corpus.kind].serves]
    kinds = ", ".join(sorted({corpus.kind for corpus in serving or corpora}))
    if not serving:
        has = " and ".join(sorted({one for corpus in corpora for one in LAYOUTS[corpus.kind].serves}))
        raise ValueError(
            f"{path} ({kinds}) has nothing that serves as {purpose}, it has {has}; kind=folder takes everything in it"
        )
    items = {name: item for corpus in serving for name, item in corpus.items(purpose, split).items()}
    if not items:
        raise ValueError(
            f"{path} holds nothing that serves as {purpose} in the layout of {kinds!r}; known: {', '.join(LAYOUTS)}"
        )
    labels = sorted({label for item in items.values() for label in item.labels})
    for label in (*only, *without):
        if label not in labels:
            raise ValueError(f"{path} ({kinds}) has no label {label!r}{did_you_mean(label, labels)}")
    if not only:
        items = {name: item for corpus in serving for name, item in corpus.usual(purpose, split).items()}
    kept = [
        name
        for name, item in items.items()
        if (not only or set(only) & set(item.labels)) and not set(without) & set(item.labels) and _is_in(split, item)
    ]
    if not kept:
        chosen = ", ".join(
            f"{what}={value}" for what, value in (("split", split), ("only", only), ("without", without)) if value
        )
        raise ValueError(f"nothing of the {len(items)} recordings in {path} ({kinds}) is left with {chosen}")
    return [named[name] for name in kept]


def _is_in(split: str, item: Item) -> bool:
    if split == "training":
        return item.split in (None, "train")
    return split in ("all", item.split or split_of(item.group))


@dataclass(frozen=True)
class Corpus:
    """What of a folder belongs to one corpus.

    Attributes:
        kind: its layout.
        root: where the whole corpus lies, above or below the folder.
        names: from names relative to ``root`` to names relative to the folder.

    >>> Corpus("folder", Path("noise"), {"rain.wav": "rain.wav"}).items("noise", "all")["rain.wav"].group
    'rain'
    """

    kind: str
    root: Path
    names: Mapping[str, str]

    def items(self, purpose: str, split: str) -> dict[str, Item]:
        """What serves a purpose, by its name in the folder."""
        items = LAYOUTS[self.kind].items(self.root, list(self.names), purpose, split)
        return {self.names[item.name]: item for item in items}

    def usual(self, purpose: str, split: str) -> dict[str, Item]:
        """The same without the labels that have to be asked for."""
        items, default = self.items(purpose, split), LAYOUTS[self.kind].default
        wanted = set(default(purpose)) if default is not None else set()
        if not any(wanted & set(item.labels) for item in items.values()):
            return items  # the folder is a part of the corpus that somebody chose
        return {name: item for name, item in items.items() if wanted & set(item.labels)}


def _divide(path: Path, names: list[str]) -> list[Corpus]:
    """The corpora that lie in a folder, or that the folder is a part of."""
    if path.is_dir():
        for root in (path, *list(path.absolute().parents)[:_LEVELS]):
            if kind := _recognised(root):
                inside = path.absolute().relative_to(root.absolute()).as_posix()
                prefix = "" if inside == "." else f"{inside}/"
                corpus = Corpus(kind, root, {f"{prefix}{name}": name for name in names})
                if root == path or any(corpus.items(purpose, "all") for purpose in LAYOUTS[kind].serves):
                    return [corpus]  # otherwise the folder only lies beside it
    corpora, left = [], dict.fromkeys(names)
    parents = (name.split("/")[:-1] for name in names)
    folders = {"/".join(parts[:depth]) for parts in parents for depth in range(1, min(len(parts), _LEVELS) + 1)}
    for folder in sorted(folders) if len(folders) <= _MOST_FOLDERS else ():
        if kind := _recognised(path / folder):
            inside = [name for name in left if name.startswith(f"{folder}/")]
            if inside:  # and no part of one that was found already
                corpora.append(Corpus(kind, path / folder, {name.removeprefix(f"{folder}/"): name for name in inside}))
            for name in inside:
                del left[name]
    return [*corpora, Corpus("folder", path, {name: name for name in left})] if left or not corpora else corpora


def _recognised(root: Path) -> str | None:
    kinds = (kind for kind, layout in LAYOUTS.items() if kind != "folder" and layout.is_here(root))
    return next(kinds, None) if root.is_dir() else None


def detect_layout(path: str | Path) -> str:
    """The layout of what lies at a path: a key of `LAYOUTS`; ``folder`` for everything else.

    >>> detect_layout("/no/such/folder")
    'folder'
    """
    path = Path(path)
    return _divide(path, [])[0].kind

"""The recordings of a corpus by what they are used for: a purpose, some classes, a held-out part."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from robustdistiller.common.names import did_you_mean, refuse_unknown

from ..audio.listing import Piece, list_pieces
from .find import LAYOUTS, Corpus, find_corpora
from .layout import PARTS, PURPOSES

logger = logging.getLogger(__name__)

SPLITS = ("all", *PARTS, "training")


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

    - ``musan``: ``noise/``, for babble ``speech/``, for music ``music/``; as noise, `only` takes the others too;
    - ``urbansound8k``: classes by name, ``split=test`` is fold 10, ``dev`` fold 9;
    - ``esc50``: classes by name, ``split=test`` is fold 5, ``dev`` fold 4;
    - ``fsd50k``: labels by name, ``split=test`` is the evaluation set, ``dev`` the validation part of the other;
    - ``demand``: the first of 16 channels; labels are the environments, ``split=test`` those of the test set of
      VoiceBank-DEMAND;
    - ``wham``: ``tr``, ``cv`` and ``tt`` are ``train``, ``dev`` and ``test``; of mixtures, what is in their ``noise``;
    - ``chime``: CHiME-3 and CHiME-4 backgrounds, the first channel there is; labels are the environments;
    - ``openslr28``: ``RIRS_NOISES``: ``simulated`` and ``real`` responses, or ``pointsource`` and ``isotropic`` noises;
      parts keep rooms together;
    - ``dns``: the DNS challenge's ``impulse_responses`` (SLR26, SLR28) or noise folder;
    - ``but_reverbdb``: BUT ReverbDB's ``measured`` responses, or what was heard in ``silence``; labels are the rooms
      too, and parts keep them together;
    - ``librispeech``: LibriSpeech and LibriTTS, their ``train-``, ``dev-`` and ``test-`` subsets as speech only; labels
      are the subsets;
    - ``folder``: all audio of a folder, a file, or a ``.tsv`` manifest.

    Where a corpus has no official parts, `split_of` divides it, originals, sessions and rooms kept together; a plain
    folder with a subfolder called ``train``, ``dev`` or ``test`` (or ``TRAIN``, as TIMIT's) has the parts that it has,
    and what lies beside them is for training unless there is a ``train``.

    Args:
        path: where the corpus lies.
        purpose: ``noise``, ``rir``, ``speech`` (to mix babble from) or ``music``.
        kind: a layout by name.
        split: ``all``, ``train``, ``dev`` or ``test``; ``training``: all of a plain folder without parts of its own,
            ``train`` of everything else, so that nothing of what suites test with is trained on.
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
    corpora = [Corpus(kind, path, {name: name for name in named})] if kind else find_corpora(path, list(named))
    serving = [corpus for corpus in corpora if purpose in corpus.serves]
    kinds = ", ".join(sorted({corpus.kind for corpus in serving or corpora}))
    if not serving:
        has = [one for one in PURPOSES if any(one in corpus.serves for corpus in corpora)]
        raise ValueError(
            f"{path} ({kinds}) has nothing that serves as {purpose}, it has {' and '.join(has)}; kind=folder takes "
            "everything in it"
        )
    found = [(corpus, corpus.items(purpose)) for corpus in serving]
    items = {name: item for _, inside in found for name, item in inside.items()}
    if not items:
        raise ValueError(
            f"{path} holds nothing that serves as {purpose} in the layout of {kinds!r}; known: {', '.join(LAYOUTS)}"
        )
    labels = sorted({label for item in items.values() for label in item.labels})
    for label in (*only, *without):
        if label not in labels:
            raise ValueError(f"{path} ({kinds}) has no label {label!r}{did_you_mean(label, labels)}")
    if not only:
        items = {name: item for corpus, inside in found for name, item in corpus.usual(inside, purpose).items()}
    kept = [
        name
        for name, item in items.items()
        if (not only or set(only) & set(item.labels)) and not set(without) & set(item.labels) and item.is_in(split)
    ]
    if not kept:
        options = (("split", split), ("only", "+".join(only)), ("without", "+".join(without)))
        chosen = ", ".join(f"{what}={value}" for what, value in options if value)
        raise ValueError(f"nothing of the {len(items)} recordings in {path} ({kinds}) is left with {chosen}")
    beside = set(kept) & {name for corpus, inside in found if corpus.kind == "folder" for name in inside}
    if beside and len(serving) > 1:
        logger.warning(
            "%s: of %d recordings that serve as %s, %d lie beside its corpora (%s, ...); where they should not serve, "
            "give the corpora by themselves",
            path,
            len(kept),
            purpose,
            len(beside),
            min(beside),
        )
    return [named[name] for name in kept]

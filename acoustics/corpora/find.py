"""Which corpora lie at a path: recognised from their root, from a part of them and from above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..audio.listing import walk_audio
from . import (
    but_reverbdb,
    chime,
    demand,
    dns,
    esc50,
    folder,
    fsd50k,
    librispeech,
    musan,
    rirs_noises,
    urbansound8k,
    wham,
)
from .layout import Folder, Item, Layout, split_of

LAYOUTS: dict[str, Layout] = {
    "musan": musan.LAYOUT,
    "urbansound8k": urbansound8k.LAYOUT,
    "esc50": esc50.LAYOUT,
    "fsd50k": fsd50k.LAYOUT,
    "demand": demand.LAYOUT,
    "wham": wham.LAYOUT,
    "chime": chime.LAYOUT,
    "openslr28": rirs_noises.LAYOUT,
    "dns": dns.LAYOUT,
    "but_reverbdb": but_reverbdb.LAYOUT,
    "librispeech": librispeech.LAYOUT,
    "folder": folder.LAYOUT,
}
_ABOVE, _BELOW = 5, 3  # levels in which a corpus is looked for
_MOST_FOLDERS = 1000  # a level with more of them holds no corpora, but for instance speakers


@dataclass(frozen=True)
class Corpus:
    """What of a folder belongs to one corpus.

    Attributes:
        kind: its layout.
        root: where the whole corpus lies, above or below the folder.
        names: from names relative to ``root`` to names relative to the folder.

    >>> Corpus("folder", Path("noise"), {"rain.wav": "rain.wav"}).items("noise")["rain.wav"].group
    'rain'
    """

    kind: str
    root: Path
    names: Mapping[str, str]

    @property
    def serves(self) -> tuple[str, ...]:
        """The purposes that a corpus of this kind serves."""
        return LAYOUTS[self.kind].serves

    def items(self, purpose: str) -> dict[str, Item]:
        """What serves a purpose, by its name in the folder; of a known corpus each is of some part."""
        items = LAYOUTS[self.kind].items(self.root, list(self.names), purpose)
        if self.kind != "folder":
            items = (replace(item, split=item.split or split_of(item.group)) for item in items)
        return {self.names[item.name]: item for item in items}

    def usual(self, items: Mapping[str, Item], purpose: str) -> dict[str, Item]:
        """The items without those whose labels have to be asked for."""
        wanted = set(LAYOUTS[self.kind].default.get(purpose, ()))
        usual = {name: item for name, item in items.items() if wanted & set(item.labels)}
        return usual or dict(items)  # without any, the folder is a part of the corpus that somebody chose


def find_corpora(path: Path, names: Sequence[str]) -> list[Corpus]:
    """The corpora that lie in a folder, or the one that it is a part of; what is left is a plain folder.

    Args:
        path: a folder, a file or a manifest.
        names: of the recordings that it holds, relative to it.

    >>> [corpus.kind for corpus in find_corpora(Path("/no/such/folder"), ["rain.wav"])]
    ['folder']
    """
    if not path.is_dir():
        return [Corpus("folder", path, {name: name for name in names})]
    if kind := _recognised(Folder.read(path)):
        return [Corpus(kind, path, {name: name for name in names})]
    for place in dict.fromkeys((path.absolute(), path.resolve())):
        for root in place.parents[:_ABOVE]:
            if kind := _recognised(Folder.read(root)):
                inside = place.relative_to(root).as_posix()
                corpus = Corpus(kind, root, {f"{inside}/{name}": name for name in names})
                if any(corpus.items(purpose) for purpose in corpus.serves):
                    return [corpus]  # otherwise the folder only lies beside it
    corpora, left = [], dict.fromkeys(names)
    for below, kind in _below(path):
        inside = [name for name in left if name.startswith(f"{below}/")]
        if inside:  # a link to another part of the folder holds none
            corpora.append(Corpus(kind, path / below, {name.removeprefix(f"{below}/"): name for name in inside}))
        for name in inside:
            del left[name]
    return [*corpora, Corpus("folder", path, {name: name for name in left})] if left or not corpora else corpora


def detect_layout(path: str | Path) -> str:
    """The layout of what lies at a path: a key of `LAYOUTS`; ``folder`` for everything else, and for several.

    >>> detect_layout("/no/such/folder")
    'folder'
    """
    known = known_layouts(path)
    return known.pop() if len(known) == 1 else "folder"


def known_layouts(path: str | Path) -> set[str]:
    """The layouts of what lies at a path, without ``folder``.

    >>> known_layouts("/no/such/folder")
    set()
    """
    path = Path(path)
    if not path.is_dir():
        return set()
    if kind := _recognised(Folder.read(path)):
        return {kind}
    return {corpus.kind for corpus in find_corpora(path, list(walk_audio(path)))} - {"folder"}


def _below(path: Path) -> Iterator[tuple[str, str]]:
    """Corpora in the folders of a folder: where, relative to it, and their kinds."""
    level = {name: path / name for name in sorted(Folder.read(path).folders)}
    for _ in range(_BELOW):
        if len(level) > _MOST_FOLDERS:
            return
        deeper: dict[str, Path] = {}
        for name, place in level.items():
            found = Folder.read(place)
            if kind := _recognised(found):
                yield name, kind
            else:
                deeper |= {f"{name}/{one}": place / one for one in sorted(found.folders)}
        level = deeper


def _recognised(found: Folder) -> str | None:
    return next((kind for kind, layout in LAYOUTS.items() if kind != "folder" and layout.is_here(found)), None)

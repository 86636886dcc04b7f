"""LibriSpeech for PR: every word needs a pronunciation of known phonemes, or s3prl stops in the middle of its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robustdistiller.eval.data.archives import Archive
from robustdistiller.eval.data.checks import beside
from robustdistiller.eval.data.librispeech import ARCHIVES, LAYOUT, NEEDED, NEEDED_SPLITS, where
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import LIBRISPEECH_LEXICA

LEXICA = tuple(
    Archive(f"https://huggingface.co/datasets/s3prl/g2p/raw/main/lexicon/{name}", size_gb=0.02)
    for name in ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
)
_FORM = "lines 'WORD PH PH ...'"


def _plan_pr(plan: Plan, roots: Roots) -> None:
    folder = plan.find(roots["path"][0], where(NEEDED_SPLITS))
    if folder is not None:
        plan.look(folder, *NEEDED_SPLITS)
        plan.set("path", folder)
    usual = plan.task.rules.files["downstream_expert.corpus.lexicon"]
    files = roots.get("lexicon") or beside(roots["path"][0], usual)
    lexicon = _look_at_lexica(plan, files, usual)
    for split in NEEDED if folder is not None and lexicon is not None else ():
        _look_at_words(plan, folder, split, lexicon)
    if files:
        plan.set("lexicon", files)


def _look_at_lexica(plan: Plan, files: Sequence[Path], usual: tuple[str, ...]) -> Mapping[str, Sequence[str]] | None:
    """Pronunciations of all lexica, None where they cannot be read."""
    from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_lexicon  # imports torch

    source = LIBRISPEECH_LEXICA.source
    if not files:
        fix = f"--root lexicon=FILE --root lexicon=FILE, in this order: {source}"
        plan.note("lexicon", f"files of {_FORM}", "not given", MISSING, fix)
        return None
    for file in files:
        if not file.is_file():
            plan.note(file.name, _FORM, f"no file {file}", MISSING, source)
            return None
        if _is_git_lfs_pointer(file):
            fix = "type 'git lfs pull' where you cloned s3prl"
            plan.note(file.name, _FORM, "the note that git lfs leaves for it", MISSING, fix)
            return None
    vocabulary = Path(task_configs.vocabulary_paths(plan.task)["config.downstream_expert.text.vocab_file"])
    try:
        lexicon = read_lexicon(files, dict.fromkeys(vocabulary.read_text(encoding="utf-8").split()))
    except ValueError as error:
        plan.note("lexicon", "phonemes of vocabularies/phonemes.txt", str(error), MISSING, "use s3prl's lexica")
        return None
    names = tuple(file.name for file in files)
    if names != usual:
        fix = "other pronunciations are other labels: not SUPERB's"
        plan.note("lexicon", ", ".join(usual), ", ".join(names), DIFFERS, fix)
    plan.note("lexicon", "pronunciations", f"of {len(lexicon)} words", OK)
    return lexicon


def _look_at_words(plan: Plan, folder: Path, split: str, lexicon: Mapping[str, Sequence[str]]) -> None:
    from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_transcripts  # imports torch

    words = {word for text in read_transcripts(folder / split).values() for word in text.split()}
    what, expected, found = f"words of {split}", "all in a lexicon", f"of {len(words)} have no pronunciation: "
    fix = "give both of s3prl's lexica, or a further --root lexicon=FILE with these words"
    unknown = sorted(words - lexicon.keys())
    if not plan.odd(what, expected, unknown, f"{{count}} {found}{{names}}", fix) and words:
        plan.note(what, expected, f"{len(words)} words", OK)


def _is_git_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(42) == b"version https://git-lfs.github.com/spec/v1"


PR = Recipe(
    (
        Input("path", LAYOUT),
        Input("lexicon", "pronunciations, given once for each file; default: s3prl's, in the folder or beside it"),
    ),
    _plan_pr,
    (*ARCHIVES, *LEXICA),
)

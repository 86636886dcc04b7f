"""LibriSpeech for PR: every word needs a pronunciation of known phonemes, or s3prl stops in the middle of its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robustdistiller.eval.data.checks import beside
from robustdistiller.eval.data.librispeech import LAYOUT, NEEDED, find_librispeech, look_at_split
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Plan, Recipe, Roots
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import LIBRISPEECH_LEXICA

_FORM = "lines 'WORD PH PH ...'"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


def _plan_pr(plan: Plan, roots: Roots) -> None:
    from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_transcripts  # imports torch

    usual = plan.task.rules.files["downstream_expert.corpus.lexicon"]
    files = roots.get("lexicon") or beside(roots["path"][0], usual)
    lexicon = _look_at_lexica(plan, files, usual)
    folder = find_librispeech(plan, roots["path"][0], NEEDED)
    for split in NEEDED:
        look_at_split(plan, folder, split)
        words = {word for text in read_transcripts(folder / split).values() for word in text.split()}
        if lexicon is not None and words:
            what, expected = f"words of {split}", "all in a lexicon"
            found = f"{{count}} of {len(words)} have no pronunciation: {{names}}"
            fix = "give both of s3prl's lexica, or a further --root lexicon=FILE with these words"
            if not plan.odd(what, expected, sorted(words - lexicon.keys()), found, fix):
                plan.note(what, expected, f"{len(words)} words", OK)
    plan.set("path", folder)
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
        if file.read_bytes().startswith(_LFS_POINTER):
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


PR = Recipe(
    {
        "path": LAYOUT,
        "lexicon": "pronunciations, given once for each file; default: s3prl's, in the folder or beside it",
    },
    _plan_pr,
)

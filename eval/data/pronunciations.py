"""LibriSpeech for PR: every word needs a pronunciation of known phonemes, or s3prl stops in the middle of its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustdistiller.eval.data.librispeech import LIBRISPEECH_LAYOUT, NEEDED, look
from robustdistiller.eval.data.looking import is_git_lfs_pointer
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Input, Plan, Recipe, Roots, named
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import LIBRISPEECH_LEXICA
from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_lexicon, read_transcripts


def plan_pr(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of PR: every word of the corpus must have a pronunciation of known phonemes.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_pr(tasks.get("PR"), {"path": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    root = look(plan, roots, "path", NEEDED)
    lexica = _look_at_lexica(plan, roots.get("lexicon", ()))
    if root is not None:
        plan.set("path", root.folder)
        if lexica is not None:
            _look_at_words(plan, root.folder, lexica)
    if roots.get("lexicon"):
        plan.set("lexicon", roots["lexicon"])
    return plan


def _look_at_lexica(plan: Plan, files: Sequence[Path]) -> dict[str, list[str]] | None:
    """Pronunciations of all lexica, None where they cannot be read."""
    where = LIBRISPEECH_LEXICA.source
    if not files:
        fix = f"--root lexicon=FILE --root lexicon=FILE, in this order: {where}"
        plan.note("lexicon", "files of lines 'WORD PH PH ...'", "not given", MISSING, fix)
        return None
    for file in files:
        if not file.is_file():
            plan.note(file.name, "lines 'WORD PH PH ...'", f"no file {file}", MISSING, where)
            return None
        if is_git_lfs_pointer(file):
            fix = "type 'git lfs pull' where you cloned s3prl"
            plan.note(file.name, "lines 'WORD PH PH ...'", "the note that git lfs leaves for it", MISSING, fix)
            return None
    vocabulary = Path(task_configs.vocabulary_paths(plan.task)["config.downstream_expert.text.vocab_file"])
    try:
        lexicon = read_lexicon(files, dict.fromkeys(vocabulary.read_text(encoding="utf-8").split()))
    except ValueError as error:
        plan.note("lexicon", "phonemes of vocabularies/phonemes.txt", str(error), MISSING, "use s3prl's lexica")
        return None
    names = tuple(file.name for file in files)
    standard = plan.task.protocol.files["downstream_expert.corpus.lexicon"]
    if names != standard:
        fix = "other pronunciations are other labels: not SUPERB's"
        plan.note("lexicon", ", ".join(standard), ", ".join(names), DIFFERS, fix)
    plan.note("lexicon", "pronunciations", f"of {len(lexicon)} words", OK)
    return lexicon


def _look_at_words(plan: Plan, folder: Path, lexicon: dict[str, list[str]]) -> None:
    for split in NEEDED:
        words = {word for text in read_transcripts(folder / split).values() for word in text.split()}
        unknown = sorted(words - lexicon.keys())
        if unknown:
            found = f"{len(unknown)} of {len(words)} have no pronunciation: {named(unknown)}"
            fix = "give both of s3prl's lexica, or a further --root lexicon=FILE with these words"
            plan.note(f"words of {split}", "all in a lexicon", found, MISSING, fix)
        elif words:
            plan.note(f"words of {split}", "all in a lexicon", f"{len(words)} words", OK)


PR = Recipe(
    (Input("path", LIBRISPEECH_LAYOUT), Input("lexicon", "pronunciations, one file or several: given once for each")),
    plan_pr,
)

"""The embedded default: a small real corpus and a small real teacher, so that everything runs with no download."""

from .corpus import MiniCorpus, build, data_dir, teacher_checkpoint

__all__ = ["MiniCorpus", "build", "data_dir", "teacher_checkpoint"]

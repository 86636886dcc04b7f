"""Joint fine-tuning of a student for keywords and speakers (https://arxiv.org/abs/2210.16611).

The parts are imported by what uses them; only the configuration, which a run's is made of, is imported here.
"""

from robustdistiller.pretrain.multitask.config import KeywordsConfig, MultitaskConfig, SpeakersConfig

__all__ = ["KeywordsConfig", "MultitaskConfig", "SpeakersConfig"]

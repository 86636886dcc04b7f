from .corpus import MiniCorpus as MiniCorpus
from .corpus import build as build
from .corpus import data_dir as data_dir
from .corpus import student_checkpoint as student_checkpoint
from .corpus import teacher_checkpoint as teacher_checkpoint

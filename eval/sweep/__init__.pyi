from .config import ExecutorConfig as ExecutorConfig
from .config import SweepConfig as SweepConfig
from .config import load as load
from .entries import SweepError as SweepError
from .entries import TaskEntry as TaskEntry
from .run import Sweep as Sweep
from .run import SweepResult as SweepResult
from .run import sweep as sweep

"""What corruption takes of a training step: a short run of the robust recipe on the shipped teacher and speech."""

from __future__ import annotations

import os
import shutil

from research.bench.settings import Settings
from robustdistiller.mini.corpus import MiniCorpus, teacher_checkpoint
from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.training.log import read_history


def split_of_a_step(corpus: MiniCorpus, settings: Settings, corruption_s: float) -> str:
    """Runs eight steps, of which the last four are measured, and says what their batches were waited for.

    Args:
        corpus: speech, noise and rooms.
        settings: of the benchmark.
        corruption_s: CPU time that corrupting one second of audio takes.
    """
    out_dir = settings.work / "corruption" / "step"
    shutil.rmtree(out_dir, ignore_errors=True)
    measured = 2 if settings.quick else 4
    workers, on_gpu = min(os.cpu_count() or 1, 8), settings.device.startswith("cuda")
    distill(
        load_config(
            "robustdistiller",
            [
                f"teacher.checkpoint={teacher_checkpoint()}",
                f"data.speech={corpus.pool}",
                f"data.noise={corpus.noise_train}",
                f"data.rir={corpus.rir_train}",
                "targets.layers=[2,3,5]",
                f"data.num_workers={workers}",
                f"trainer.accelerator={'gpu' if on_gpu else 'cpu'}",
                f"trainer.batch_size={4 if settings.quick else 24 if on_gpu else 6}",
                f"trainer.max_steps={2 * measured}",
                f"trainer.log_every_steps={measured}",
                "trainer.progress=false",
                f"seed={settings.seed}",
                f"out_dir={out_dir}",
            ],
        )
    )
    line = read_history(out_dir / "history.csv")[-1]
    shutil.rmtree(out_dir)
    rate = line["audio_s_per_s"]
    return (
        f"Distillation steps (mini teacher of 4.5 M parameters, {workers} loader processes, the last {measured}) hear "
        f"{rate:.0f} s of audio a second. In the loader processes, corrupting takes {corruption_s * rate:.2%} of that "
        f"time in CPU time; {line['data_wait']:.2%} of it is spent waiting for batches."
    )

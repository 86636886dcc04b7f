"""What corruption takes of a training step: a short run of the robust recipe on the shipped teacher and speech."""

from __future__ import annotations

import json
import os
import shutil

from research.bench.settings import Settings
from robustdistiller.mini.corpus import MiniCorpus, teacher_checkpoint
from robustdistiller.pretrain import distill, load_config


def split_of_a_step(corpus: MiniCorpus, settings: Settings, corruption_s: float) -> str:
    """Runs eight steps, of which five are measured, and says where their time went.

    Args:
        corpus: speech, noise and rooms.
        settings: of the benchmark.
        corruption_s: CPU time that corrupting one second of audio takes.
    """
    out_dir = settings.work / "corruption" / "step"
    shutil.rmtree(out_dir, ignore_errors=True)
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
                f"trainer.max_steps={4 if settings.quick else 8}",
                "trainer.progress=false",
                f"seed={settings.seed}",
                f"out_dir={out_dir}",
            ],
        )
    )
    cost = json.loads((out_dir / "cost.json").read_text(encoding="utf-8"))
    shutil.rmtree(out_dir)
    total_s = sum(cost["step_s"].values())
    parts = ", ".join(f"{name} {seconds / total_s:.2%}" for name, seconds in cost["step_s"].items())
    return (
        f"A distillation step (mini teacher of 4.5 M parameters, {cost['audio_s_per_step']:.0f} s of audio, {workers} "
        f"loader processes, {cost['device']}, mean of {cost['measured_steps']} steps) takes {total_s:.2f} s: {parts}. "
        f"In the loader processes, corrupting its audio takes {corruption_s * cost['audio_s_per_step'] / total_s:.2%} "
        "of that in CPU time; what of it is waited for is in `data wait`."
    )

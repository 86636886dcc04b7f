"""What s3prl's runner trains and scores for a table of labels, see `csv_task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from robustdistiller.acoustics.audio.files import audio_infos, read_audio
from robustdistiller.acoustics.audio.labelled import Labelled
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.tasks.csv_task import digest_of, read_items

KEPT_SAMPLES = 2**26  # 70 minutes, 256 MB: heads of small tables are trained for hundreds of epochs


class Recordings(Dataset):
    """Recordings of one split: waveform at 16 kHz, index of the label among all labels, name.

    Args:
        items: what is in the split.
        labels: of the task.
        kept: waveforms by path, that were read before; up to :data:`KEPT_SAMPLES` are added.
    """

    def __init__(self, items: Sequence[Labelled], labels: Sequence[str], kept: dict[Path, np.ndarray]) -> None:
        self.items, self.labels, self.kept = items, labels, kept
        self._room = KEPT_SAMPLES - sum(map(len, kept.values()))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        item = self.items[index]
        wave = self.kept.get(item.path)
        if wave is None:
            wave = read_audio(item.path, SAMPLE_RATE_HZ, channel=0)
            if len(wave) <= self._room:
                self.kept[item.path] = wave
                self._room -= len(wave)
        return wave.copy(), self.labels.index(item.label), item.name


def _collate(samples: list) -> tuple[Sequence, ...]:
    return tuple(zip(*samples))


class DownstreamExpert(nn.Module):
    """s3prl's head for whole utterances: a linear map, the mean over frames, and another linear map.

    Raises:
        FileNotFoundError, ValueError: the table is wrong, or another one than the head's; a recording is no audio.
    """

    def __init__(self, upstream_dim: int, downstream_expert: Mapping[str, Any], expdir: str, **others: Any) -> None:
        from s3prl.downstream import model  # with s3prl only

        super().__init__()
        self.datarc, self.modelrc, self.expdir = downstream_expert["datarc"], downstream_expert["modelrc"], expdir
        items, _ = read_items(Path(self.datarc["csv"]), self.datarc["split_seed"])
        if digest_of(items) != self.datarc["digest"]:
            raise ValueError(f"{self.datarc['csv']} has other recordings or labels than when this task was made of it")
        audio_infos(item.path for item in items)  # what is no audio stops a training before it begins
        self.items, self.labels = items, sorted({item.label for item in items})
        self._kept: dict[Path, np.ndarray] = {}
        select = self.modelrc["select"]
        self.projector = nn.Linear(upstream_dim, self.modelrc["projector_dim"])
        self.model = getattr(model, select)(
            input_dim=self.modelrc["projector_dim"], output_dim=len(self.labels), **self.modelrc.get(select, {})
        )
        self.objective = nn.CrossEntropyLoss()
        self.register_buffer("best_score", torch.zeros(1))

    def get_dataloader(self, split: str) -> DataLoader:
        """The recordings of a split, those of the training in a new order every time."""
        items = [item for item in self.items if item.split == split]
        return DataLoader(
            Recordings(items, self.labels, self._kept),
            batch_size=self.datarc["train_batch_size" if split == "train" else "eval_batch_size"],
            shuffle=split == "train",
            num_workers=self.datarc["num_workers"],
            collate_fn=_collate,
        )

    def forward(
        self, split: str, features: list[Tensor], labels: Sequence[int], names: Sequence[str], records: dict, **_: Any
    ) -> Tensor:
        """Loss of a batch of features, each (frames, upstream_dim); what is right is added to s3prl's ``records``."""
        lengths = torch.tensor([len(one) for one in features], dtype=torch.int32, device=features[0].device)
        logits, _ = self.model(self.projector(pad_sequence(features, batch_first=True)), lengths)
        truth = torch.tensor(labels, device=logits.device)
        loss = self.objective(logits, truth)
        said = logits.argmax(dim=-1)
        records["loss"].append(loss.item())
        records["acc"] += (said == truth).float().tolist()
        records["filename"] += names
        records["predict"] += [self.labels[index] for index in said.tolist()]
        records["truth"] += [self.labels[index] for index in labels]
        return loss

    def log_records(
        self, split: str, records: Mapping[str, list], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log accuracy and loss, write predictions, and name the checkpoint to save if this is the best head so far."""
        means = {key: float(np.mean(records[key])) for key in ("acc", "loss")}
        for key, value in means.items():
            logger.add_scalar(f"csv/{split}-{key}", value, global_step=global_step)
        if split != "train":
            for key in ("predict", "truth"):
                lines = "".join(f"{name} {label}\n" for name, label in zip(records["filename"], records[key]))
                (Path(self.expdir) / f"{split}_{key}.txt").write_text(lines, encoding="utf-8")
        if split == "dev" and means["acc"] > self.best_score:
            self.best_score = torch.full((1,), means["acc"])
            return ["dev-best.ckpt"]
        return []

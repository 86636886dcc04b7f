"""The same utterance id and seed give the same bytes, whatever happens around them."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import CorruptionParameters, CorruptionPolicy, Corruptor, corrupt, corrupt_utterance

POLICY = CorruptionPolicy(0.1, 0.2, 0.2, 0.5, babble_probability=0.2)


class Corrupted(torch.utils.data.Dataset):
    """Corrupts batches of utterance ids inside the data loader."""

    def __init__(self, corruptor, utterances):
        self.corruptor, self.utterances, self.ids = corruptor, utterances, list(utterances)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.ids[index]

    def collate(self, ids):
        lengths = [len(self.utterances[name]) for name in ids]
        waveforms = torch.zeros(len(ids), max(lengths) + 13 * len(ids))
        for row, name in zip(waveforms, ids):
            row[: len(self.utterances[name])] = torch.from_numpy(self.utterances[name])
        batch = self.corruptor.prepare([self.corruptor.draw(*one) for one in zip(ids, lengths)], lengths)
        return ids, lengths, waveforms, batch


def run(dataset, apply=corrupt, **options):
    loader = torch.utils.data.DataLoader(dataset, collate_fn=dataset.collate, **options)
    results = {}
    for ids, lengths, waveforms, batch in loader:
        out = apply(waveforms, torch.tensor(lengths), batch)
        results |= {name: row[:n].numpy().tobytes() for name, row, n in zip(ids, out, lengths)}
    return results


@pytest.fixture
def dataset(sources, utterances):
    return Corrupted(Corruptor(POLICY, seed=3, **sources), utterances)


def test_bytes_do_not_depend_on_batch_size_order_or_workers(dataset):
    reference = run(dataset, batch_size=1)
    assert len(set(reference.values())) == len(dataset) == 12
    assert run(dataset, batch_size=5) == reference
    assert run(dataset, batch_size=12, num_workers=2) == reference
    assert run(dataset, batch_size=4, num_workers=2, shuffle=True) == reference
    for name, waveform in dataset.utterances.items():
        assert corrupt_utterance(waveform, dataset.corruptor, name).tobytes() == reference[name]


def test_bytes_do_not_depend_on_threads(dataset):
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            results.append(run(dataset, batch_size=6))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_the_comparison_notices_an_fft_that_depends_on_the_batch(dataset):
    """PyTorch's FFT over the whole batch, at a size set by the longest row, is not good enough."""

    def careless(waveforms, lengths, batch):
        spectrum = torch.fft.rfft(waveforms, 2 * waveforms.shape[1])
        return torch.fft.irfft(spectrum, 2 * waveforms.shape[1])[:, : waveforms.shape[1]]

    assert run(dataset, careless, batch_size=1) != run(dataset, careless, batch_size=5)


def test_bytes_do_not_depend_on_global_generators_or_earlier_draws(dataset):
    torch.manual_seed(0)
    np.random.seed(0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name, waveform in dataset.utterances.items():
        corrupt_utterance(waveform, dataset.corruptor, name)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    first = run(dataset, batch_size=4)
    torch.manual_seed(1)
    np.random.seed(1)
    dataset.corruptor.draw("another", 50)
    assert run(dataset, batch_size=4) == first


def test_seed_epoch_and_id_change_the_draw(sources):
    def draws(seed=3, epoch=0, prefix="utt"):
        corruptor = Corruptor(POLICY, seed=seed, **sources)
        return [corruptor.draw(f"{prefix}-{index}", 16000, epoch) for index in range(20)]

    reference = draws()
    assert draws() == reference
    for other in (draws(seed=4), draws(epoch=1), draws(prefix="abc")):
        assert sum(one == two for one, two in zip(reference, other)) < 8


def test_stored_parameters_replay_the_same_bytes(dataset, sources):
    utterance = dataset.utterances["utt-5"]
    replayed = Corruptor(POLICY, seed=99, **sources)
    for epoch in range(12):
        parameters = dataset.corruptor.draw("utt-5", len(utterance), epoch)
        stored = json.dumps(parameters.to_dict())
        loaded = CorruptionParameters.from_dict(json.loads(stored))
        assert loaded == parameters
        waveforms = torch.from_numpy(utterance)[None]
        out = corrupt(waveforms, None, replayed.prepare([loaded], [len(utterance)]))
        expected = corrupt_utterance(utterance, dataset.corruptor, "utt-5", epoch)
        assert out[0].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operation": "nois"}, r"unknown operation 'nois'; did you mean 'noise'"),
        ({"operation": "noise"}, r"'noise' needs snr_db and noise"),
        ({"operation": "clean", "rir": {"name": "a"}}, r"'clean' excludes rir"),
        ({"operation": "reverb", "rir": {"name": "a", "chanel": 1}}, r"unknown key 'parameters.rir.chanel'.*'channel'"),
        ({"operation": "noise", "snr_db": 1, "noise": {"kind": "file"}}, r"needs names of recordings"),
        ({"operation": "noise", "snr_db": 1, "noise": {"kind": "pink"}}, r"needs a seed"),
        ({"operation": "clean", "snr": 1}, r"unknown key 'parameters.snr'.*'snr_db'"),
    ],
)
def test_broken_parameters_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CorruptionParameters.from_dict(values)


def test_another_process_draws_and_makes_the_same(library):
    """Nothing depends on the process or on its hash randomisation."""
    script = (
        "import hashlib, sys, numpy as np\n"
        "from robustdistiller.acoustics import Corruptor, corrupt_utterance\n"
        "c = Corruptor(sys.argv[1], seed=5)\n"
        "print(hashlib.sha256(corrupt_utterance(np.ones(20000, np.float32), c, 'utt').tobytes()).hexdigest())\n"
    )
    text = f"noise+reverb:snr_db=5,noise={library / 'noise'},rir={library / 'rir'}"
    other = subprocess.run([sys.executable, "-c", script, text], capture_output=True, text=True)
    here = corrupt_utterance(np.ones(20000, np.float32), Corruptor(text, seed=5), "utt")
    assert other.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest(), other.stderr

"""The same utterance id and seed give the same bytes, whatever happens around them."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import CorruptionPolicy, Corruptor, check_parameters, corrupt_utterance

POLICY = CorruptionPolicy(
    [
        {"clean": 1, "noise:snr_db=0..20": 4, "noise:snr_db=0..20,noise=babble": 1, "talker": 1},
        {"clean": 1, "reverb": 4, "pitch_shift": 1, "band_reject": 1},
        {"clean": 2, "codec": 1, "clipping": 1},
    ]
)


class Corrupted(torch.utils.data.Dataset):
    """Corrupts batches of utterance ids inside the data loader."""

    def __init__(self, corruptor, utterances):
        self.corruptor, self.utterances, self.ids = corruptor, utterances, list(utterances)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.ids[index]

    def collate(self, ids):
        return {name: corrupt_utterance(self.utterances[name], self.corruptor, name).tobytes() for name in ids}


def run(dataset, **options):
    results = {}
    for batch in torch.utils.data.DataLoader(dataset, collate_fn=dataset.collate, **options):
        results |= batch
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
        loaded = check_parameters(json.loads(json.dumps(parameters)))
        assert loaded == parameters
        expected = corrupt_utterance(utterance, dataset.corruptor, "utt-5", epoch)
        assert replayed.apply(utterance, loaded).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operation": "nois"}, r"unknown effect 'nois'; did you mean 'noise'"),
        ({"operation": "noise"}, r"'noise' needs snr_db"),
        ({"operation": "clean", "rir": {"name": "a"}}, r"unknown key 'rir'"),
        ({"operation": "noise", "snr_db": 1, "noise": {}, "rir": {}}, r"unknown key 'rir' in parameters"),
        ({"operation": "pitch_shift", "pitch_cent": 1}, r"unknown key 'pitch_cent'.*'pitch_cents'"),
    ],
)
def test_broken_parameters_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(values)


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

"""Features on disk: what comes back, under several processes, damage, limits and full disks."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest

from robustdistiller.eval.feature_cache import CacheError, FeatureStore

KEYS = [bytes([number]) * 16 for number in range(40)]


def features(number: int, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((2, frames, 3)).astype(np.float32)


def _write(folder, numbers) -> None:
    store = FeatureStore(folder, 2, 3)
    for number in numbers:
        store.put(KEYS[number], features(number))
    os.kill(os.getpid(), signal.SIGKILL)  # nothing is closed


def test_what_is_put_comes_back_in_another_process_s_store(tmp_path) -> None:
    store = FeatureStore(tmp_path, 2, 3)
    assert store.put(KEYS[0], features(0, 5)) and store.put(KEYS[1], features(1, 9))
    assert not store.put(KEYS[0], features(7))  # kept as it is
    for reader in (store, FeatureStore(tmp_path, 2, 3)):
        assert np.array_equal(reader.get(KEYS[0]), features(0, 5)) and np.array_equal(
            reader.get(KEYS[1]), features(1, 9)
        )
        assert reader.get(KEYS[2]) is None and len(reader) == 2
        assert reader.size_bytes == 2 * 14 * 3 * 4


def test_processes_write_at_once_and_a_killed_one_loses_nothing(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, range(start, start + 20))) for start in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {writer.exitcode for writer in writers} == {-signal.SIGKILL}
    store = FeatureStore(tmp_path, 2, 3)
    assert all(np.array_equal(store.get(KEYS[number]), features(number)) for number in range(40))


def test_what_others_add_is_found_later(tmp_path, monkeypatch) -> None:
    early, late = FeatureStore(tmp_path, 2, 3), FeatureStore(tmp_path, 2, 3)
    late.put(KEYS[0], features(0))
    monkeypatch.setattr("robustdistiller.eval.feature_cache.store._LOOK_AGAIN_S", 0.0)
    assert np.array_equal(early.get(KEYS[0]), features(0))
    late.put(KEYS[1], features(1))  # the file has grown since it was mapped
    assert np.array_equal(early.get(KEYS[1]), features(1))


@pytest.mark.parametrize("cut", ["data", "index"])
def test_half_a_file_is_half_a_cache(tmp_path, cut) -> None:
    store = FeatureStore(tmp_path, 2, 3)
    for number in range(4):
        store.put(KEYS[number], features(number))
    (path,) = tmp_path.glob(f"*.{cut}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 5 // 8])
    reader = FeatureStore(tmp_path, 2, 3)
    found = [reader.get(key) for key in KEYS[:4]]
    assert [one is not None for one in found] == [True, True, False, False]
    assert all(np.array_equal(found[number], features(number)) for number in range(2))


def test_a_flipped_bit_is_computed_anew(tmp_path, caplog) -> None:
    store = FeatureStore(tmp_path, 2, 3)
    store.put(KEYS[0], features(0))
    (path,) = tmp_path.glob("*.data")
    raw = bytearray(path.read_bytes())
    raw[17] ^= 4
    path.write_bytes(raw)
    assert FeatureStore(tmp_path, 2, 3).get(KEYS[0]) is None
    assert "damaged" in caplog.text


def test_it_stops_at_its_limit_and_goes_on_reading(tmp_path, caplog) -> None:
    store = FeatureStore(tmp_path, 2, 3, max_bytes=300)  # an entry of five frames takes 120
    assert [store.put(KEYS[number], features(number)) for number in range(4)] == [True, True, False, False]
    assert "limit of 3e-07 GB is reached" in caplog.text and caplog.text.count("is reached") == 1
    assert store.get(KEYS[1]) is not None


def test_a_full_disk_stops_nothing(tmp_path, monkeypatch, caplog) -> None:
    store = FeatureStore(tmp_path, 2, 3)
    store.put(KEYS[0], features(0))

    class Full:
        def tell(self):
            return 0

        def write(self, _):
            raise OSError(28, "No space left on device")

    shard, _, index = store._own
    monkeypatch.setattr(store, "_own", (shard, Full(), index))
    assert not store.put(KEYS[1], features(1))
    assert "No space left on device" in caplog.text and store.get(KEYS[0]) is not None


def test_half_precision_takes_half_the_space(tmp_path) -> None:
    store = FeatureStore(tmp_path, 2, 3, dtype="float16")
    store.put(KEYS[0], features(0))
    assert np.array_equal(store.get(KEYS[0]), features(0).astype(np.float16)) and store.size_bytes == 60


def test_another_kind_of_features_is_refused(tmp_path) -> None:
    FeatureStore(tmp_path, 2, 3, about={"weights": "aa"})
    with pytest.raises(CacheError, match="holds features with weights 'aa'; expected 'bb'"):
        FeatureStore(tmp_path, 2, 3, about={"weights": "bb"})
    with pytest.raises(CacheError, match="expected \\(2, frames, 3\\)"):
        FeatureStore(tmp_path, 2, 3, about={"weights": "aa"}).put(KEYS[0], np.zeros((1, 5, 3), np.float32))

"""Arrays on disk: what comes back, under several processes, damage, limits and full disks."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import zlib

import numpy as np
import pytest

from robustdistiller.common.array_store import ArrayStore, StoreError

SHAPE = (2, None, 3)
KEYS = [bytes([number]) * 16 for number in range(40)]


def features(number: int, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((2, frames, 3)).astype(np.float32)


def _write(folder, numbers) -> None:
    store = ArrayStore(folder, SHAPE)
    for number in numbers:
        store.put(KEYS[number], features(number))
    os.kill(os.getpid(), signal.SIGKILL)  # nothing is closed


def test_what_is_put_comes_back_in_another_process_s_store(tmp_path) -> None:
    store = ArrayStore(tmp_path, SHAPE)
    assert store.put(KEYS[0], features(0, 5)) and store.put(KEYS[1], features(1, 9))
    assert not store.put(KEYS[0], features(7))  # kept as it is
    for reader in (store, ArrayStore(tmp_path, SHAPE)):
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
    store = ArrayStore(tmp_path, SHAPE)
    assert all(np.array_equal(store.get(KEYS[number]), features(number)) for number in range(40))


def test_what_others_add_is_found_later(tmp_path, monkeypatch) -> None:
    early, late = ArrayStore(tmp_path, SHAPE), ArrayStore(tmp_path, SHAPE)
    late.put(KEYS[0], features(0))
    monkeypatch.setattr("robustdistiller.common.array_store._LOOK_AGAIN_S", 0.0)
    assert np.array_equal(early.get(KEYS[0]), features(0))
    late.put(KEYS[1], features(1))  # the file has grown since it was mapped
    assert np.array_equal(early.get(KEYS[1]), features(1))


@pytest.mark.parametrize("cut", ["data", "index"])
def test_half_a_file_is_half_a_cache(tmp_path, cut) -> None:
    store = ArrayStore(tmp_path, SHAPE)
    for number in range(4):
        store.put(KEYS[number], features(number))
    (path,) = tmp_path.glob(f"*.{cut}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 5 // 8])
    reader = ArrayStore(tmp_path, SHAPE)
    found = [reader.get(key) for key in KEYS[:4]]
    assert [one is not None for one in found] == [True, True, False, False]
    assert all(np.array_equal(found[number], features(number)) for number in range(2))


def test_a_flipped_bit_is_computed_anew(tmp_path, caplog) -> None:
    store = ArrayStore(tmp_path, SHAPE)
    store.put(KEYS[0], features(0))
    (path,) = tmp_path.glob("*.data")
    raw = bytearray(path.read_bytes())
    raw[17] ^= 4
    path.write_bytes(raw)
    assert ArrayStore(tmp_path, SHAPE).get(KEYS[0]) is None
    assert "damaged" in caplog.text


def test_it_stops_at_its_limit_and_goes_on_reading(tmp_path, caplog) -> None:
    store = ArrayStore(tmp_path, SHAPE, max_bytes=300)  # an entry of five frames takes 120
    assert [store.put(KEYS[number], features(number)) for number in range(4)] == [True, True, False, False]
    assert "limit of 3e-07 GB is reached" in caplog.text and caplog.text.count("is reached") == 1
    assert store.get(KEYS[1]) is not None


def test_a_full_disk_stops_nothing(tmp_path, monkeypatch, caplog) -> None:
    store = ArrayStore(tmp_path, SHAPE)
    store.put(KEYS[0], features(0))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robustdistiller.common.array_store._write", full)
    assert not store.put(KEYS[1], features(1))
    assert "No space left on device" in caplog.text and store.get(KEYS[0]) is not None


def test_half_precision_takes_half_the_space(tmp_path) -> None:
    store = ArrayStore(tmp_path, SHAPE, dtype="float16")
    store.put(KEYS[0], features(0))
    assert np.array_equal(store.get(KEYS[0]), features(0).astype(np.float16)) and store.size_bytes == 60


def test_another_kind_of_features_is_refused(tmp_path) -> None:
    ArrayStore(tmp_path, SHAPE, about={"weights": "aa"})
    with pytest.raises(StoreError, match="holds weights 'aa'; expected 'bb'"):
        ArrayStore(tmp_path, SHAPE, about={"weights": "bb"})
    with pytest.raises(StoreError, match="expected \\(2, None, 3\\)"):
        ArrayStore(tmp_path, SHAPE, about={"weights": "aa"}).put(KEYS[0], np.zeros((1, 5, 3), np.float32))


def test_what_was_not_read_for_longest_is_forgotten(tmp_path) -> None:
    limit = 16 * 120  # one entry of five frames in each of 16 pieces
    store = ArrayStore(tmp_path, SHAPE, max_bytes=limit, evict=True)
    for number in range(16):
        assert store.put(KEYS[number], features(number))
        os.utime(sorted(tmp_path.glob("*.data"), key=lambda path: path.stat().st_ctime_ns)[-1], (number, number))
    reader = ArrayStore(tmp_path, SHAPE, max_bytes=limit, evict=True)
    assert reader.get(KEYS[0]) is not None  # now that of number 1 was not read for longest
    assert all(store.put(KEYS[number], features(number)) for number in (16, 17)) and not store.full
    assert [number for number in range(18) if store.get(KEYS[number]) is None] == [1, 2]
    assert store.size_bytes == limit == sum(path.stat().st_size for path in tmp_path.glob("*.data"))
    for number in range(16):  # a reader that still has them mapped, and one that opens the folder now
        for one in (reader, ArrayStore(tmp_path, SHAPE, max_bytes=limit, evict=True)):
            found = one.get(KEYS[number])
            assert found is None or np.array_equal(found, features(number))
    assert not store.put(KEYS[30], features(30, frames=1000)) and "limit" in store.full


def test_two_processes_may_forget_at_once(tmp_path, monkeypatch) -> None:
    """A file is gone when the second process looks at it again."""
    store = ArrayStore(tmp_path, SHAPE, max_bytes=16 * 120, evict=True)
    assert all(store.put(KEYS[number], features(number)) for number in range(16))
    victim, looks, stat = min(tmp_path.glob("*.data")), [], type(tmp_path).stat

    def stat_after_another_process(path, **options):
        if path == victim:
            looks.append(path)
            if len(looks) == 2:
                victim.unlink()
                victim.with_suffix(".index").unlink()
        return stat(path, **options)

    monkeypatch.setattr(type(tmp_path), "stat", stat_after_another_process)
    assert all(store.put(KEYS[number], features(number)) for number in range(16, 20))
    assert not store.full and len(looks) >= 2 and not victim.exists()


def test_a_store_goes_to_other_processes(tmp_path) -> None:
    store = ArrayStore(tmp_path, SHAPE, about={"weights": "aa"}, max_bytes=10_000)
    store.put(KEYS[0], features(0))
    other = pickle.loads(pickle.dumps(store))
    assert np.array_equal(other.get(KEYS[0]), features(0)) and other.max_bytes == 10_000
    with multiprocessing.get_context("fork").Pool(1) as pool:  # a forked one writes to files of its own
        assert pool.apply(_put_one, (store, 1))
    assert store.put(KEYS[2], features(2))
    fresh = ArrayStore(tmp_path, SHAPE, about={"weights": "aa"})
    assert all(np.array_equal(fresh.get(KEYS[number]), features(number)) for number in range(3))
    assert len(list(tmp_path.glob("*.data"))) == 2


def _put_one(store: ArrayStore, number: int) -> bool:
    return store.put(KEYS[number], features(number))


def test_a_folder_of_the_first_version_is_read(tmp_path) -> None:
    about = {"format": 1, "dtype": "float32", "layers": 2, "dim": 3}
    (tmp_path / "about.json").write_text(json.dumps(about))
    line = np.dtype([("key", "V16"), ("offset", "<u8"), ("frames", "<u4"), ("crc", "<u4")])
    data = features(0)
    (tmp_path / "host-1-ab.data").write_bytes(data.tobytes())
    (tmp_path / "host-1-ab.index").write_bytes(np.array((KEYS[0], 0, 5, zlib.crc32(data)), line).tobytes())
    store = ArrayStore(tmp_path, SHAPE, about={"layers": 2, "dim": 3})
    assert np.array_equal(store.get(KEYS[0]), data)

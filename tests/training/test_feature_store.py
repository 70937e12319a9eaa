"""Features on disk: what was written is read, or nothing is; whoever writes beside, and however a writer ends."""

import errno
import multiprocessing
import os
import pickle
import random
import shutil
import time
import tracemalloc

import pytest
import torch

from speechverse.training.data.feature_store import FeatureStore


WIDTH = 8


def features_of(number: int) -> torch.Tensor:
    """Features that only this number has, `(1 to 9 frames, WIDTH)`, exact in bf16."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(1 + number % 9, WIDTH, generator=generator).bfloat16()


def key_of(number: int) -> str:
    return f"{number:064x}"


def fill(folder, numbers, batch=4) -> FeatureStore:
    store, numbers = FeatureStore(folder, WIDTH), list(numbers)
    for start in range(0, len(numbers), batch):
        store.add({key_of(number): features_of(number) for number in numbers[start : start + batch]})
    return store


def assert_holds(store, numbers, among=100) -> None:
    """The store has these, as they were written, and no other."""
    assert [number for number in range(among) if key_of(number) in store] == sorted(numbers)
    assert len(store) == len(set(numbers))
    for number in numbers:
        torch.testing.assert_close(store[key_of(number)], features_of(number), rtol=0, atol=0)


def the_file(folder, ending):
    (file,) = folder.glob(f"*.{ending}")
    return file


def test_stored_features_are_read_here_and_elsewhere(tmp_path):
    store = fill(tmp_path / "a" / "b", range(10))
    for reader in (store, FeatureStore(tmp_path / "a" / "b", WIDTH), pickle.loads(pickle.dumps(store))):
        assert_holds(reader, range(10))
    assert store[key_of(3)].dtype == torch.bfloat16
    with pytest.raises(KeyError):
        store[key_of(10)]


def test_features_of_any_dtype_and_layout_are_rounded_to_bf16(tmp_path):
    store = FeatureStore(tmp_path, WIDTH)
    features = torch.randn(WIDTH, 5).T
    store.add({"a": features, "b": features.half(), "c": torch.empty(5, WIDTH).copy_(features).requires_grad_()})
    torch.testing.assert_close(store["a"], features.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(store["b"], features.half().bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(store["c"], features.bfloat16(), rtol=0, atol=0)


def test_reading_takes_no_memory_but_for_what_is_read(tmp_path):
    store = FeatureStore(tmp_path, 1024)
    store.add({key_of(number): torch.full((1000, 1024), number) for number in range(10)})  # 20 MB
    tracemalloc.start()
    try:
        store = FeatureStore(tmp_path, 1024)
        for number in range(10):
            assert store[key_of(number)].sum(dtype=torch.float32) == number * 1024_000
        assert tracemalloc.get_traced_memory()[1] < 2 * 2_048_000
    finally:
        tracemalloc.stop()


def test_features_can_be_changed_without_harm_to_the_store(tmp_path):
    store = fill(tmp_path, range(3))
    store[key_of(1)].zero_()
    assert_holds(store, range(3))


@pytest.mark.parametrize("ending", ["bf16", "index"])
def test_what_is_left_of_a_cut_file_is_read_and_the_rest_is_written_anew(ending, tmp_path):
    fill(tmp_path / "whole", range(20))
    lines = the_file(tmp_path / "whole", "index").read_text().splitlines(keepends=True)
    ends = [sum(map(len, lines[: n + 1])) for n in range(20)]
    if ending == "bf16":
        ends = [2 * WIDTH * sum(len(features_of(n)) for n in range(number + 1)) for number in range(20)]
    draw = random.Random(0)
    for cut in {0, ends[0] - 1, ends[0], ends[-1] - 1, *draw.sample(range(ends[-1]), 40)}:
        folder = tmp_path / f"{cut}"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(the_file(folder, ending), cut)
        left = [number for number in range(20) if ends[number] <= cut]
        store = FeatureStore(folder, WIDTH)
        assert_holds(store, left)
        store.add({key_of(number): features_of(number) for number in range(20) if number not in left})
        for reader in (store, FeatureStore(folder, WIDTH)):
            assert_holds(reader, range(20))


def test_zeros_that_a_power_failure_leaves_are_no_entries(tmp_path):
    fill(tmp_path, range(20))
    index = the_file(tmp_path, "index")
    whole = index.read_bytes()
    for start in range(0, len(whole), 37):
        index.write_bytes(whole[:start] + bytes(len(whole) - start))
        assert_holds(FeatureStore(tmp_path, WIDTH), range(whole[:start].count(b"\n")))


def test_changed_bytes_are_never_taken_for_features(tmp_path):
    fill(tmp_path, range(5))
    file = the_file(tmp_path, "bf16")
    content = bytearray(file.read_bytes())
    content[2 * WIDTH * (len(features_of(0)) + 1)] ^= 1  # in the second
    file.write_bytes(content)
    store = FeatureStore(tmp_path, WIDTH)
    torch.testing.assert_close(store[key_of(0)], features_of(0))
    with pytest.raises(ValueError, match=r"\.bf16 is damaged: delete it, and the next run encodes anew"):
        store[key_of(1)]
    file.unlink()
    assert_holds(FeatureStore(tmp_path, WIDTH), [])


def test_writers_at_once_do_not_disturb_each_other(tmp_path):
    first, second = FeatureStore(tmp_path, WIDTH), FeatureStore(tmp_path, WIDTH)
    for number in range(0, 20, 2):
        first.add({key_of(number): features_of(number)})
        second.add({key_of(number + 1): features_of(number + 1)})
        second.add({key_of(50): features_of(50)})  # again and again
    first.refresh()
    for store in (first, FeatureStore(tmp_path, WIDTH)):
        assert_holds(store, [*range(20), 50])
    second.add({key_of(30): features_of(30)})  # after the others have mapped its rows
    first.refresh()
    assert_holds(first, [*range(20), 30, 50])


def write_for_ever(folder, start):
    store = FeatureStore(folder, WIDTH)
    for round_ in range(1_000_000):
        numbers = [start + (3 * round_ + n) % 50 for n in range(3)]
        store.add({key_of(number): features_of(number) for number in numbers})


def test_killed_writers_leave_nothing_but_whole_features(tmp_path):
    fork = multiprocessing.get_context("fork")
    known = set()
    for kill in range(6):
        writers = [fork.Process(target=write_for_ever, args=(tmp_path, start)) for start in (0, 50)]
        for writer in writers:
            writer.start()
        while len(list(tmp_path.glob("*.index"))) < 2 * (kill + 1):
            time.sleep(0.001)
        time.sleep(random.Random(kill).random() / 20)
        for writer in writers:
            writer.kill()
            writer.join()
        store = FeatureStore(tmp_path, WIDTH)
        found = {number for number in range(100) if key_of(number) in store}
        assert found >= known and found
        assert_holds(store, found)
        known = found
    store.add({key_of(number): features_of(number) for number in range(100) if number not in known})
    assert_holds(FeatureStore(tmp_path, WIDTH), range(100))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_write_that_fails_loses_itself_alone(error, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    store = fill(tmp_path, range(5))
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail)
        with pytest.raises(type(error)):
            store.add({key_of(number): features_of(number) for number in range(5, 8)})
    assert_holds(store, range(5))
    rows = the_file(tmp_path, "bf16")
    os.truncate(rows, rows.stat().st_size - 1)  # the disk may end within a row
    store.add({key_of(9): features_of(9)})
    for reader in (store, FeatureStore(tmp_path, WIDTH)):
        assert_holds(reader, [*range(5), 9])

"""Shards hold what the loose files hold, and a run resumes from them."""

import io
import json
import tarfile

import pytest
import soundfile

from speechverse.training.data import synthesize as module
from speechverse.training.data.chunks import Chunk
from speechverse.training.data.clip_shards import read_shards, write_shard
from speechverse.training.data.clip_store import ClipStore
from speechverse.training.data.synthesize import synthesize


SENTENCES = [{"text": f"Radio {i}.", "target": "é", "split": "train"} for i in range(5)]
SENTENCES.insert(2, {"text": "你好"})  # silent: line 2 is in no shard


@pytest.fixture
def runs(monkeypatch):
    """First line of each chunk that was spoken; chunks hold two lines."""
    pytest.importorskip("py_nanotts")
    monkeypatch.setattr(module, "CHUNK_SIZE", 2)
    started, run = [], Chunk.run
    monkeypatch.setattr(Chunk, "run", lambda chunk: (started.append(chunk.calls[0]["index"]), run(chunk)))
    return started


def speak(folder, sentences=SENTENCES, **options):
    manifest = synthesize(sentences, folder, voices=["nanotts:en-US"], num_workers=1, **options)
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def tars(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").glob("*"))}


def test_shards_are_webdatasets_layout(runs, tmp_path):
    rows = speak(tmp_path, shards=3)
    names = {}
    for path in sorted((tmp_path / "shards").iterdir()):
        with tarfile.open(path, "r:") as tar:
            names[path.name] = tar.getnames()
    assert names == {
        "000000.tar": ["000000.flac", "000000.json", "000001.flac", "000001.json"],
        "000001.tar": [f"00000{i}.{suffix}" for i in (3, 4, 5) for suffix in ("flac", "json")],
    }
    clips = read_shards(tmp_path / "shards")
    assert list(clips) == [row["audio"][6:12] for row in rows]
    for row in rows:
        clip = clips[row["audio"][6:12]]
        assert {"audio": row["audio"]} | clip.row == row
        assert clip.read() == (tmp_path / row["audio"]).read_bytes()


def test_datasets_reads_the_shards(runs, tmp_path):
    datasets = pytest.importorskip("datasets")
    speak(tmp_path, shards=3)
    files = sorted(map(str, (tmp_path / "shards").glob("*.tar")))

    def load(features=None):
        return datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True, features=features)

    features = load().features
    assert isinstance(features["flac"], datasets.Audio)
    features["flac"] = datasets.Value("binary")  # decoding wants torchcodec
    samples = list(load(features))
    assert [sample["json"]["text"] for sample in samples] == [f"Radio {i}." for i in range(5)]
    audio, rate = soundfile.read(io.BytesIO(samples[0]["flac"]))
    assert rate == 16_000 and len(audio) / rate == samples[0]["json"]["duration"]


def test_run_resumes_from_shards_alone(runs, tmp_path):
    speak(tmp_path / "loose", shards=3)
    expected = tars(tmp_path / "loose")
    runs.clear()

    folder = tmp_path / "packed"
    rows = speak(folder, shards=3, only_shards=True)
    assert tars(folder) == expected
    assert not (folder / "audio").exists()
    assert [(row["shard"], row["key"]) for row in rows][1:3] == [
        ("shards/000000.tar", "000001"),
        ("shards/000001.tar", "000003"),
    ]
    assert runs == [0, 2, 4]

    assert speak(folder, shards=3, only_shards=True) == rows
    assert runs == [0, 2, 4], "nothing is spoken twice"

    (folder / "shards" / "000001.tar").unlink()
    speak(folder, shards=3, only_shards=True)
    assert runs == [0, 2, 4, 2, 4], "lines 3 to 5 were lost"
    assert tars(folder) == expected

    speak(folder, shards=2, only_shards=True)
    assert list(tars(folder)) == ["000000.tar", "000001.tar", "000002.tar"] and len(runs) == 5
    speak(folder, shards=3, only_shards=True)
    assert tars(folder) == expected and len(runs) == 5, "another size needs no new speech"

    relabelled = [sentence | {"split": "test"} for sentence in SENTENCES]
    assert {row["split"] for row in speak(folder, relabelled, shards=3, only_shards=True)} == {"test"}
    assert {clip.row["split"] for clip in read_shards(folder / "shards").values()} == {"test"}
    assert len(runs) == 5, "nor do other labels"

    speak(folder)
    assert len(runs) == 5 and not (folder / "shards").exists()
    loose = [
        sorted(path.read_bytes() for path in (tmp_path / name / "audio").iterdir()) for name in ("loose", "packed")
    ]
    assert loose[0] == loose[1]

    speak(folder, seed=1, shards=3, only_shards=True)
    assert len(runs) == 8 and tars(folder) != expected, "another seed leaves nothing of the first"
    speak(folder, shards=3, only_shards=True)
    assert tars(folder) == expected


def test_interrupted_packing_resumes(runs, monkeypatch, tmp_path):
    speak(tmp_path / "reference", shards=3, only_shards=True)
    runs.clear()
    from speechverse.training.data import clip_store

    def interrupt(path, clips):
        if path.name == "000001.tar":
            raise KeyboardInterrupt
        write_shard(path, clips)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clip_store, "write_shard", interrupt)
        speak(tmp_path / "packed", shards=3, only_shards=True)
    assert not (tmp_path / "packed" / "manifest.jsonl").exists()
    speak(tmp_path / "packed", shards=3, only_shards=True)
    assert runs == [0, 2, 4]
    assert tars(tmp_path / "packed") == tars(tmp_path / "reference")


def test_clips_are_gone_through_once_for_all_shards(tmp_path):
    class Counted(dict):
        passes = 0

        def items(self):
            Counted.passes += 1
            return super().items()

    rows = {index: {"text": str(index)} for index in range(30)}
    store = ClipStore(tmp_path, None)
    for index in rows:
        store.loose(index).write_bytes(b"audio")
    store.lay_out(rows, shard_size=3, only_shards=False)
    again = ClipStore(tmp_path, None)
    again.sharded = Counted(again.sharded)
    before = tars(tmp_path)
    again.lay_out(rows, shard_size=3, only_shards=False)
    assert Counted.passes == 1 and tars(tmp_path) == before and len(before) == 10

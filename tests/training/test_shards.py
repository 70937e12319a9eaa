"""A corpus in shards gives the same samples, with the same bytes; interrupted writing goes on where it was."""

import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from encoded_audio import encoded
from pyarrow import parquet
from tiny_models import noise

from speechverse.training.data import corpus_shards, shards
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.corpus_samples import read_samples
from speechverse.training.data.corpus_shards import shard_corpus
from speechverse.training.data.recordings import Segment
from speechverse.training.data.rows import RejectedRow
from speechverse.training.data.shards import MemberNames, encoded_audio


CORPUS = """
id: tones
title: Noises of all kinds
licence: CC0-1.0
permissive: true
citation: nobody
access: it is made by a test
sources:
  - kind: jsonl
    root: $SPEECHVERSE_DATA
    files: tones.jsonl
    splits: {train: {part: a}, test: {part: b}}
    columns: {audio: file, key: id, emotion: mood, text: words, speaker: who, slots: slots, take: take, part: part}
derive:
  - match_labels: {column: emotion, labels: {happy: joy, sad: grief}}
tasks:
  asr: {answer: text}
  er: {answer: emotion}
"""
CODECS = ["flac", "wav", "vorbis", "opus", "mp3"]
NUM_ROWS = 12


@pytest.fixture
def corpus(data_folder):
    """Twelve rows of train, of which the third has no recording and the fifth is no JSON; two rows of test."""
    lines = []
    for index in range(NUM_ROWS + 2):
        codec = CODECS[index % len(CODECS)]
        name = f"{index}.{'ogg' if codec in ('vorbis', 'opus') else codec}"
        if index != 2:
            (data_folder / name).write_bytes(encoded(codec, noise(0.2 + 0.01 * index, index)))
        fields = {
            "file": name,
            "id": f"Ä/take.{index}",
            "mood": "joy" if index % 2 else "grief",
            "words": f"wörd {index}",
        }
        slots = [{"label": "date", "value": "today"}] if index % 3 else []
        fields |= {
            "who": None if index == 1 else "ann",
            "slots": slots,
            "take": index,
            "part": "ab"[index >= NUM_ROWS],
        }
        lines.append("{" if index == 4 else json.dumps(fields))
    (data_folder / "tones.jsonl").write_text("\n".join(lines))
    (data_folder / "tones.yaml").write_text(CORPUS)
    return load_corpus(str(data_folder / "tones.yaml"))


def comparable(corpus, split, bank) -> list[tuple]:
    """The samples, with the waves of their recordings in place of the references."""
    samples = [sample for sample in read_samples(corpus, split, bank) if not isinstance(sample, RejectedRow)]
    return [
        (
            dataclasses.replace(sample, audio="", answer=None),
            sample.answer,
            soundfile.read(io.BytesIO(bytes_of(sample)))[0].tolist(),
        )
        for sample in samples
        if sample.key != "Ä/take.2"
    ]


def bytes_of(sample) -> bytes:
    return encoded_audio(sample.audio)[0]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_give_the_same_samples(kind, corpus, bank, tmp_path):
    for split in ("train", "test"):
        file, dropped = shard_corpus(corpus, split, tmp_path / "shards", kind, shard_bytes=20_000)
        read = load_corpus(str(file))
        assert comparable(read, split, bank) == comparable(corpus, split, bank)
        assert len(comparable(read, split, bank)) == (2 * (NUM_ROWS - 2) if split == "train" else 4)
    assert (read.licence, read.access, read.views) == (corpus.licence, corpus.access, corpus.views)
    folder = tmp_path / "shards" / "tones"
    assert len(list(folder.glob(f"train-*.{kind}"))) > 2 and not list(folder.glob("*.tmp"))


def test_shards_of_a_stream_are_those_of_the_files(corpus, tmp_path):
    file, _ = shard_corpus(corpus, "train", tmp_path / "parquet", "parquet")
    streamed, dropped = shard_corpus(load_corpus(str(file)), "train", tmp_path / "streamed", streaming=True)
    original, _ = shard_corpus(corpus, "train", tmp_path / "original")
    assert not dropped
    members = []
    for folder in (streamed.parent, original.parent):
        with tarfile.open(folder / "train-000000.tar") as archive:
            contents = {member.name: archive.extractfile(member).read() for member in archive}
        members.append({name: json.loads(c) if name.endswith("json") else c for name, c in contents.items()})
    assert members[0] == members[1]


def test_what_cannot_be_used_is_listed(corpus, tmp_path):
    _, dropped = shard_corpus(corpus, "train", tmp_path / "shards")
    assert [(row["key"].rsplit("/", 1)[-1], row["reason"].split(":")[0]) for row in dropped] == [
        ("take.2", "not there"),
        ("tones.jsonl, line 5", "not JSON"),
    ]
    assert all((row["corpus"], row["split"]) == ("tones", "train") for row in dropped)
    listed = (tmp_path / "shards" / "tones" / "train.dropped.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in listed] == [2, 4]


def test_tar_is_in_webdataset_layout_with_the_original_bytes(corpus, data_folder, tmp_path):
    shard_corpus(corpus, "train", tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "tones" / "train-000000.tar", "r:") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    assert list(members)[:4] == ["Ä/take_0.flac", "Ä/take_0.json", "Ä/take_1.wav", "Ä/take_1.json"]
    assert members["Ä/take_0.flac"] == (data_folder / "0.flac").read_bytes()
    assert members["Ä/take_3.ogg"] == (data_folder / "3.ogg").read_bytes()
    fields = {"emotion": "joy", "text": "wörd 1", "speaker": None, "take": 1, "key": "Ä/take.1", "part": "a"}
    assert json.loads(members["Ä/take_1.json"]) == fields | {"slots": [{"label": "date", "value": "today"}]}


def test_parquet_is_known_to_datasets_as_audio(corpus, data_folder, tmp_path):
    import datasets

    shard_corpus(corpus, "train", tmp_path / "shards", "parquet")
    file = tmp_path / "shards" / "tones" / "train-000000.parquet"
    table = datasets.load_dataset("parquet", data_files=str(file), split="train")
    assert isinstance(table.features["audio"], datasets.Audio)
    row = table.cast_column("audio", datasets.Audio(decode=False))[0]
    assert row["audio"] == {"bytes": (data_folder / "0.flac").read_bytes(), "path": "Ä/take_0.flac"}
    assert parquet.read_schema(file).field("take").type == "int64"


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_interrupted_writing_goes_on(kind, corpus, bank, tmp_path, monkeypatch):
    whole, _ = shard_corpus(corpus, "train", tmp_path / "whole", kind, shard_bytes=20_000)
    written, finished = [], []
    original = shards.encoded_audio

    def failing(audio):
        written.append(audio)
        if len(written) == 6 and not finished:
            raise OSError("the disk is full")
        return original(audio)

    monkeypatch.setattr(shards, "encoded_audio", failing)
    with pytest.raises(OSError, match="the disk is full"):
        shard_corpus(corpus, "train", tmp_path / "shards", kind, shard_bytes=20_000)
    finished += sorted((tmp_path / "shards" / "tones").glob(f"train-*.{kind}"))
    times = [file.stat().st_mtime_ns for file in finished]
    assert finished
    written.clear()
    monkeypatch.setattr(corpus_shards, "BATCH", 2)
    _, dropped = shard_corpus(corpus, "train", tmp_path / "shards", kind, shard_bytes=20_000)
    assert len(dropped) == 2 and len(written) < NUM_ROWS - 2 and [f.stat().st_mtime_ns for f in finished] == times
    for file in whole.parent.glob(f"train*{'.json*' if kind == 'parquet' else ''}"):
        assert (tmp_path / "shards" / "tones" / file.name).read_bytes() == file.read_bytes()
    written.clear()
    assert shard_corpus(corpus, "train", tmp_path / "shards", kind)[1] == dropped
    assert not written  # it was complete


def test_what_was_dropped_is_read_back_whatever_its_key(tmp_path):
    """JSON leaves these two as they are, and splitlines() ends a line at them."""
    index = shards.ShardIndex(tmp_path, "train", "tar")
    row = {"key": "a\u2028b\u0085c", "reason": "not there: a\u2028b\r\n"}
    index.write([shards.PlacedRow(0, "a", None, row), shards.PlacedRow(1, "b", None, row)])
    read = shards.ShardIndex.load(tmp_path, "train", "tar")
    assert read == index and read.dropped == [{"row": 0, **row}, {"row": 1, **row}]


def test_shards_of_other_rows_are_not_continued(corpus, data_folder, tmp_path):
    shard_corpus(corpus, "train", tmp_path, shard_bytes=20_000)
    folder = tmp_path / "tones"
    index = json.loads((folder / "train.json").read_text())
    with pytest.raises(ValueError, match="holds tar shards of train: take another folder for parquet"):
        shard_corpus(corpus, "train", tmp_path, "parquet")
    (folder / "train.json").write_text(json.dumps(index | {"complete": False, "last_key": "another"}))
    with pytest.raises(ValueError, match="holds other rows of train than the corpus has now"):
        shard_corpus(corpus, "train", tmp_path)
    (folder / index["shards"][0]["name"]).write_bytes(b"cut short")
    with pytest.raises(ValueError, match="train-000000.tar is not as .* lists it"):
        shard_corpus(corpus, "train", tmp_path)
    with pytest.raises(ValueError, match="has no split 'dev'"):
        shard_corpus(corpus, "dev", tmp_path)


def test_stretch_of_a_longer_file_is_cut_without_loss(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(2.0), 16_000, subtype="PCM_16")
    content, ending = encoded_audio(Segment(str(tmp_path / "long.wav"), 0.5, 1.25))
    original, _ = soundfile.read(tmp_path / "long.wav", start=8_000, stop=20_000)
    wave, rate = soundfile.read(io.BytesIO(content))
    assert (ending, rate) == ("flac", 16_000)
    np.testing.assert_array_equal(wave, original)


def test_columns_that_cut_are_not_in_the_shards(data_folder, bank, tmp_path):
    soundfile.write(data_folder / "long.wav", noise(2.0), 16_000)
    rows = [{"file": "long.wav", "id": str(n), "words": "yes", "from": 0.5 * n, "to": 0.5 * n + 0.4} for n in range(4)]
    (data_folder / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "columns: {audio: file, key: id, text: words, start: from, end: to}"
    lines = [
        columns if "columns:" in line else line for line in CORPUS.replace("  er: {answer: emotion}", "").split("\n")
    ]
    text = "\n".join(f"    {line}" if line == columns else line for line in lines if "match_labels" not in line)
    text = text.replace("derive:\n", "").replace("{train: {part: a}, test: {part: b}}", "{train: {}}")
    (data_folder / "cut.yaml").write_text(text)
    corpus = load_corpus(str(data_folder / "cut.yaml"))
    file, _ = shard_corpus(corpus, "train", tmp_path)
    assert comparable(load_corpus(str(file)), "train", bank) == comparable(corpus, "train", bank)


def test_shards_below_the_data_folder_can_move_with_it(corpus, data_folder):
    file, _ = shard_corpus(corpus, "test", data_folder / "shards")
    assert load_corpus(str(file)).sources[0]["root"] == "$SPEECHVERSE_DATA/shards/tones"


def test_member_names_are_unique_and_have_no_dots():
    names = MemberNames()
    assert [names.of(key) for key in ("a.b", "a_b", "a/b c", "/", "a.b", "é")] == [
        "a_b",
        "a_b-2",
        "a/b_c",
        "_",
        "a_b-3",
        "é",
    ]


def test_ending_is_that_of_the_bytes(tmp_path):
    for codec, ending in (("flac", "flac"), ("opus", "ogg"), ("wav", "wav"), ("mp3", "mp3")):
        content = encoded(codec)
        (tmp_path / "misnamed.bin").write_bytes(content)
        assert encoded_audio(str(tmp_path / "misnamed.bin")) == (content, ending)


def test_row_that_is_no_json_is_named(tmp_path):
    writer = shards.TarShardWriter(tmp_path / "a.tar")
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    with pytest.raises(ValueError, match="Row k cannot be written as JSON: .*set"):
        writer.add("k", {"key": "k", "audio": str(tmp_path / "a.wav"), "field": {1}})
    assert not (tmp_path / "a.tar").exists()
    writer = shards.ParquetShardWriter(tmp_path / "a.parquet")
    for key, value in (("k", 1), ("l", "one")):
        writer.add(key, {"key": key, "audio": str(tmp_path / "a.wav"), "field": value})
    with pytest.raises(ValueError, match="a.parquet: its rows do not make one table .*: write tar shards"):
        writer.close()

"""Each kind of layout: what is read of it, what is said of broken parts, and that recordings stay references."""

import io
import pickle
import tarfile

import pyarrow
import pytest
import soundfile
from corpus_copies import encoded_audio, write_audio, write_json_lines, write_parquet, write_table, write_text
from pyarrow import parquet
from tiny_models import noise, tiny_model, tiny_processor

from speechverse.processing.audio_speechverse import load_audio
from speechverse.training.data.dataset import InstructionDataset
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.recordings import EncodedAudio, Segment, TableCell, TarMember, audio_size, open_audio
from speechverse.training.data.rows import RejectedRow
from speechverse.training.data.sample import Sample
from speechverse.training.data.sources import SOURCES, build_source


TEXTS = ["one", "two", "three"]


def write_tar(file, texts=TEXTS, mode="w"):
    with tarfile.open(file, mode) as archive:
        for index, text in enumerate(texts):
            for ending, content in (
                ("json", f'{{"text": "{text}", "__key__": "no"}}'.encode()),
                ("flac", encoded_audio()["bytes"]),
                ("note.txt", b" spoken\n"),
            ):
                member = tarfile.TarInfo(f"part/{index:04}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet_here(root):
    write_parquet(root / "train-0.parquet", [{"audio": encoded_audio(), "text": text} for text in TEXTS])


def write_hub_here(root):
    write_parquet(
        root / "me/corpus/data/train-0.parquet", [{"audio": encoded_audio(), "text": text} for text in TEXTS]
    )


def write_folder_here(root):
    for text in ("1_one", "2_two", "3_three"):
        write_audio(root / "recordings" / f"{text}.wav")
    (root / "recordings" / "4_four.txt").write_text("no recording")


def write_jsonl_here(root):
    for index in range(3):
        write_audio(root / "wav" / f"{index}.ogg", format="OGG", subtype="OPUS")
    rows = [{"wav": f"{index}.ogg", "text": text} for index, text in enumerate(TEXTS)]
    write_json_lines(root / "train.jsonl", *rows)


def write_json_here(root):
    write_jsonl_here(root)
    rows = ",".join(f'["{index}.ogg", "{text}"]' for index, text in enumerate(TEXTS))
    write_text(root / "train.json", f'{{"train": [{rows}], "test": []}}')


def write_table_here(root):
    write_jsonl_here(root)
    write_table(root / "train.csv", [{"wav": f"{index}.ogg", "text": text} for index, text in enumerate(TEXTS)])


def write_lines_here(root):
    write_jsonl_here(root)
    write_text(root / "train.lst", *(f"{index}.ogg" for index in range(3)))
    write_text(root / "train.en", *TEXTS)


def write_tar_here(root):
    write_tar(root / "train-0.tar")


HERE = {"root": "$SPEECHVERSE_DATA", "splits": {"train": "train"}}
WAV = {"audio": "wav/$wav", "text": "text"}
# A row for each kind of layout: how to write it, its entry, and what stands for a recording.
KINDS = {
    "hub": (
        write_hub_here,
        {"id": "me/corpus", "splits": {"train": "train"}, "columns": {"audio": "audio", "text": "text"}},
        TableCell,
    ),
    "parquet": (
        write_parquet_here,
        {"files": "{split}-*.parquet", "columns": {"audio": "audio", "text": "text"}},
        TableCell,
    ),
    "audio_folder": (
        write_folder_here,
        {"files": "recordings/*", "pattern": r"recordings/\d_(?P<text>\w+)\.wav", "columns": {"text": "text"}},
        str,
    ),
    "jsonl": (write_jsonl_here, {"files": "{split}.jsonl", "columns": WAV}, str),
    "json": (
        write_json_here,
        {"files": "{split}.json", "records": "{split}", "columns": {"audio": "wav/$file", "text": "1", "file": "0"}},
        str,
    ),
    "table": (write_table_here, {"files": "{split}.csv", "columns": WAV}, str),
    "lines": (
        write_lines_here,
        {"files": "{split}.lst", "line": "(?P<wav>.+)", "beside": {"text": "{split}.en"}, "columns": WAV},
        str,
    ),
    "tar": (write_tar_here, {"files": "{split}-*.tar", "columns": {"text": "text"}}, TarMember),
}
KINDS["json"][1].update(columns={"audio": "0", "text": "1"}, audio_files="wav/*")


def source_of(kind, **changes):
    entry = KINDS[kind][1]
    return build_source({"kind": kind, **({} if "splits" in entry else HERE), **entry, **changes}, "sources[0]")


@pytest.fixture
def written(data_folder):
    def written(kind, **changes):
        KINDS[kind][0](data_folder)
        return source_of(kind, **changes)

    return written


def test_every_kind_is_tested():
    assert KINDS.keys() == SOURCES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_in_order_with_their_recordings_by_reference(kind, written):
    source = written(kind)
    assert source.is_there()
    rows = list(source.rows("train"))
    assert [row["text"] for row in rows] == TEXTS
    assert len({row["key"] for row in rows}) == 3
    for row in rows:
        assert isinstance(row["audio"], KINDS[kind][2])
        audio = pickle.loads(pickle.dumps(row["audio"]))
        assert audio == row["audio"] and hash(audio) == hash(row["audio"])
        assert len(load_audio(open_audio(audio), 16_000)) == 4800 and audio_size(audio) > 0
    assert len(pickle.dumps(rows[0]["audio"])) < 20_000 or kind in ("hub", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_recordings_of_every_kind_are_learned_from(kind, written, tmp_path):
    model = tiny_model()
    processor = tiny_processor(model)
    samples = [Sample(row["audio"], ("say it .",), "yes") for row in written(kind).rows("train")]
    features = FeatureCache(model, processor, tmp_path / "features", batch_size=2)
    features.add(sample.audio for sample in samples)
    checked = check_samples(samples, FilterRules(processor), workers=1)
    plain, cached = InstructionDataset(checked, processor)[1], InstructionDataset(checked, processor, features)[1]
    assert plain["input_ids"] == cached["input_ids"] and plain["labels"] == cached["labels"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_there(kind, data_folder):
    source = source_of(kind)
    assert not source.is_there() and "$SPEECHVERSE_DATA" in source.place() or source.remote


@pytest.mark.parametrize("kind", KINDS)
def test_split_that_it_does_not_have(kind, written):
    with pytest.raises(ValueError, match="has no split 'dev'; it has train"):
        list(written(kind).rows("dev"))


@pytest.mark.parametrize("kind", ["hub", "parquet"])
def test_stream_holds_the_bytes(kind, written):
    rows = list(written(kind).rows("train", streaming=True))
    assert [row["text"] for row in rows] == TEXTS and all(isinstance(row["audio"], EncodedAudio) for row in rows)


@pytest.mark.parametrize("audio", [None, {"bytes": None, "path": "gone.wav"}, {"bytes": b"", "path": None}])
def test_cell_without_bytes_is_rejected_when_streamed(audio):
    with pytest.raises(ValueError, match="no recording: the audio column holds no bytes"):
        source_of("parquet").find_audio({}, audio)


@pytest.mark.parametrize("streaming", [False, True])
def test_audio_column_of_paths_is_rejected(streaming, data_folder):
    table = pyarrow.table({"audio": ["clips/1.wav"], "text": ["one"]})
    parquet.write_table(table, data_folder / "train-0.parquet")
    [row] = source_of("parquet").rows("train", streaming=streaming)
    assert row == RejectedRow("train/0", "no recording: the audio column holds a path, clips/1.wav, and no bytes")


def test_several_roots_of_which_the_first_that_is_there_counts(written, data_folder):
    source = written("jsonl", root=["$SPEECHVERSE_DATA/elsewhere", "$NOWHERE/x", "$SPEECHVERSE_DATA"])
    assert len(list(source.rows("train"))) == 3


def test_names_that_belong_together_and_filters(data_folder):
    for name in "ab":
        write_json_lines(data_folder / f"{name}.jsonl", {"t": f"{name}1", "n": 1}, {"t": f"{name}2", "n": None})
    splits = {"both": ["b", "a"], "ones": {"n": "1"}, "empty": {"n": ""}}
    source = build_source(
        {
            "kind": "jsonl",
            "root": str(data_folder),
            "files": ["{split}.jsonl"],
            "splits": splits,
            "columns": {"text": "t", "n": "n"},
        },
        "s",
    )
    assert [row["text"] for row in source.rows("both")] == ["b1", "b2", "a1", "a2"]
    everything = build_source(
        {
            "kind": "jsonl",
            "root": str(data_folder),
            "files": "*.jsonl",
            "splits": splits,
            "columns": {"text": "t", "n": "n"},
        },
        "s",
    )
    assert [row["text"] for row in everything.rows("ones")] == ["a1", "b1"]
    assert [row["text"] for row in everything.rows("empty")] == ["a2", "b2"]
    assert [row["key"] for row in everything.rows("empty")] == ["empty/1", "empty/3"]


def test_column_made_of_others_and_constants(data_folder):
    write_json_lines(data_folder / "train.jsonl", {"a": 1, "b": "x"}, {"a": 2})
    columns = {"text": "${a}_$b", "kind": {"value": "speech"}, "where": "_stem"}
    rows = list(source_of("jsonl", columns=columns).rows("train"))
    assert rows[0] == {"text": "1_x", "kind": "speech", "where": "train", "key": "train/0"}
    assert rows[1] == RejectedRow("train/1", "column b is missing")


def test_broken_lines_of_a_table_are_rejected(data_folder):
    write_text(data_folder / "train.csv", "wav,text", "a,b,c", "a", 'a.wav,"x, ""y"""')
    rows = list(source_of("table").rows("train"))
    assert [row.reason for row in rows[:2]] == ["not as many cells as the header has"] * 2
    assert rows[0].key.endswith("train.csv, line 2") and rows[2]["text"] == 'x, "y"'


def test_lines_with_separators_of_unicode_are_whole(data_folder):
    write_json_lines(data_folder / "train.jsonl", {"text": "one\u2028two"})
    assert [row["text"] for row in source_of("jsonl", columns={"text": "text"}).rows("train")] == ["one\u2028two"]


def test_files_that_do_not_run_line_by_line(written, data_folder):
    source = written("lines")
    write_text(data_folder / "train.en", *TEXTS, "four")
    [row] = source.rows("train")
    assert row.reason == "not as many lines: 3, but 4 in train.en"
    (data_folder / "train.en").unlink()
    [row] = source.rows("train")
    assert row.reason == "no file beside it: train.en"


def test_file_that_is_not_utf_8_is_named(data_folder):
    (data_folder / "train.jsonl").write_bytes(b'{"text": "Espa\xf1ol"}\n')
    with pytest.raises(ValueError, match="train.jsonl is not UTF-8"):
        list(source_of("jsonl", columns={"text": "text"}).rows("train"))


def test_recordings_are_found_by_name_whatever_their_ending(data_folder):
    (data_folder / "wav").mkdir()
    (data_folder / "wav" / "a.1.m4a").write_bytes(b"")
    write_audio(data_folder / "wav" / "a.1.flac")
    write_json_lines(data_folder / "train.jsonl", {"wav": "a.1"}, {"wav": "a.1.m4a"}, {"wav": "b"})
    rows = list(source_of("jsonl", audio_files="wav/*", columns={"audio": "wav"}).rows("train"))
    assert [row["audio"] for row in rows[:2]] == [str(data_folder / "wav" / "a.1.flac")] * 2
    assert rows[2].reason == "no recording: b is not among wav/*"


def test_compressed_tar_is_refused(data_folder):
    write_tar(data_folder / "train-0.tar", mode="w:gz")
    with pytest.raises(ValueError, match="train-0.tar is no uncompressed tar"):
        list(source_of("tar").rows("train"))


def test_broken_parts_of_a_tar_are_rejected(data_folder):
    with tarfile.open(data_folder / "train-0.tar", "w") as archive:
        for name, content in (("a.json", b"{"), ("b.json", b'{"text": "x"}'), ("c.json", b"[1]")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    reasons = [row.reason.split(":")[0] for row in source_of("tar").rows("train")]
    assert reasons == [
        "not readable",
        "column text is missing",
        "no recording",
        "not an object",
        "column text is missing",
    ]


def test_segment_reads_its_own_stretch(tmp_path):
    wave = noise(2.0)
    soundfile.write(tmp_path / "a.flac", wave, 16_000)
    whole = load_audio(str(tmp_path / "a.flac"), 16_000)
    part = load_audio(open_audio(Segment(str(tmp_path / "a.flac"), 0.5, 1.25)), 16_000)
    assert (part == whole[8000:20_000]).all()
    tail = Segment(str(tmp_path / "a.flac"), 1.5, 2.09)  # its transcript rounds
    assert len(load_audio(open_audio(tail), 16_000)) == 8000
    for segment, error, message in (
        (Segment(str(tmp_path / "a.flac"), 3.0, 4.0), ValueError, "ends before 3 s"),
        (Segment(str(tmp_path / "a.flac"), 1.5, 2.2), ValueError, "ends at 2 s, before 2.2 s"),
        (Segment(str(tmp_path / "b.flac"), 0.0, 1.0), FileNotFoundError, "is not there"),
    ):
        with pytest.raises(error, match=message):
            segment.read()


def test_segment_of_a_tars_member(written):
    *_, row = written("tar").rows("train")
    whole = load_audio(open_audio(row["audio"]), 16_000)
    segment = pickle.loads(pickle.dumps(Segment(row["audio"], 0.1, 0.25)))
    assert (load_audio(open_audio(segment), 16_000) == whole[1600:4000]).all()


def test_segment_that_is_no_audio(tmp_path):
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(ValueError, match="cannot be read"):
        Segment(str(tmp_path / "a.wav"), 0.0, 1.0).read()

"""What cannot be learned from is left out with its reason; the rest stays, in order."""

import dataclasses
import json
import os
import random

import numpy as np
import pytest
import soundfile
from encoded_audio import encoded, flipped
from tiny_models import noise, tiny_model, tiny_processor
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.corpus_samples import read_samples
from speechverse.training.data.filters import FilterRules, check_samples, count_audio_tokens, filter_samples
from speechverse.training.data.report import DataPart, kind_of, write_report
from speechverse.training.data.rows import RejectedRow
from speechverse.training.data.sample import Sample


@pytest.fixture(scope="module")
def processor():
    """Of a WavLM and a T5: no bound on seconds, 12.5 frames a second."""
    return tiny_processor(tiny_model())


@pytest.fixture(scope="module")
def whisper_processor():
    """Of a Whisper, which takes 30 s, and a Llama."""
    return tiny_processor(tiny_model("whisper", "llama"), "whisper", "llama")


@pytest.fixture
def sample(tmp_path):
    """Makes a sample of noise."""

    def sample(
        seconds: float = 0.5, target: str = "red", task: str | None = None, rate: int = 16_000, **fields
    ) -> Sample:
        file = tmp_path / f"{seconds}-{rate}.wav"
        if not file.exists():
            soundfile.write(file, noise(seconds * rate / 16_000), rate)
        return Sample(str(file), ("say it",), target, task, **fields)

    return sample


def fault(sample: Sample, **rules) -> str | None:
    (checked,) = check_samples([sample], FilterRules(**rules))
    return checked.fault


def test_good_sample_is_measured(sample, processor, bank):
    (checked,) = check_samples([sample(2.0, "happy", "er", rate=8_000)], FilterRules(processor, bank))
    assert checked.fault is None
    assert (checked.seconds, checked.audio_tokens) == (2.0, 25)
    assert checked.label_tokens == 2  # T5's </s> is learned, too


def test_bounds_on_frames(sample, processor):
    long = sample(2.0)
    assert fault(long, processor=processor, max_audio_tokens=25) is None
    assert fault(long, processor=processor, max_audio_tokens=24) == "too many frames: 25 projected ones, at most 24"
    assert fault(long, processor=processor, max_audio_tokens=None) is None
    assert fault(long, max_audio_tokens=1) is None  # without a processor nobody knows


def test_paper_bounds_are_the_default(processor, monkeypatch):
    assert count_audio_tokens(processor, 72.0) == 900
    rules = FilterRules(processor)
    assert (rules.max_audio_tokens, rules.max_label_tokens) == (900, 600)


def test_bounds_on_label_tokens(sample, processor, whisper_processor):
    for one in (processor, whisper_processor):
        assert fault(sample(target="red " * 599), processor=one) is None
        expected = "too many label tokens: 601, at most 600"
        assert fault(sample(target="red " * 600), processor=one) == expected
        assert fault(sample(target="red " * 600), processor=one, max_label_tokens=None) is None


@pytest.fixture(scope="module")
def lower_case_processor():
    """Of a T5 that has a token for each small letter, and spaces for newlines."""
    processor = tiny_processor(tiny_model())
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {
        letter: n for n, letter in enumerate("▁abcdefghijklmnopqrstuvwxyz", 3)
    }
    backend = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Replace("\n", " ")
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return processor


@pytest.mark.parametrize(
    "target, expected",
    [
        ("wir gehen", None),
        ("wir gehen\n", None),
        ("wir gehen über", "unwritable label: 'ü' has no token"),
        ("über A und über B", "unwritable label: 'ü', 'A', 'B' have no token"),
        ("ABCDEFG", "unwritable label: 'A', 'B', 'C', 'D', 'E' and 2 more have no token"),
        ("u\u0308ber", "unwritable label: 'ü' has no token"),
        ("wir\ngehen", r"unwritable label: '\n' has no token"),
        ("Wir\ngehen", r"unwritable label: 'W', '\n' have no token"),
        ("wir <unk>", "unwritable label: '<', '>' have no token"),
    ],
)
def test_characters_that_the_llm_cannot_write(sample, lower_case_processor, target, expected):
    one = sample(target=target)
    assert fault(one, processor=lower_case_processor) == expected
    assert fault(one, processor=lower_case_processor, keep_unwritable=True) is None
    assert (
        fault(one, processor=lower_case_processor, max_audio_tokens=None, max_label_tokens=None, silence=None) is None
    )
    assert fault(one, processor=lower_case_processor, max_label_tokens=None, keep_unwritable=False) == expected
    assert fault(one) is None  # nobody knows


def test_characters_that_t5_cannot_write(sample, processor, flan_t5_small, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(flan_t5_small)
    monkeypatch.setattr(processor, "tokenizer", tokenizer)
    for character in "ìíòúïœÄÖ{}<~\\^`\n":
        assert fault(sample(target=f"a{character}b"), processor=processor) == (
            f"unwritable label: {character!r} has no token"
        )
    assert fault(sample(target="Über Straßen, café à l'été: “ja” — 5 € …"), processor=processor) is None


def test_words_of_a_vocabulary_of_words_are_kept(sample, processor):
    assert fault(sample(target="unheard of"), processor=processor) is None


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"target": "say <audio>"}, "placeholder in label: 'say <audio>' holds <audio>, which stands for a recording"),
        ({"values": {"keyword": "<audio>"}}, "placeholder in instruction: '<audio>' holds <audio>, which stands for"),
        ({"values": {}, "labels": {"red": "", "<audio>": ""}}, "placeholder in instruction: '<audio>' holds"),
        ({"values": {}, "labels": {"red": "<audio>", "b": ""}}, "placeholder in instruction: '<audio>' holds"),
        ({"instructions": ("a", "<audio> b <audio>")}, "placeholder in instruction: '<audio> b <audio>' holds more"),
    ],
)
def test_placeholders_for_recordings_that_are_not_there(sample, processor, fields, expected):
    one = dataclasses.replace(sample(), **fields)
    assert fault(one, processor=processor).startswith(expected)
    assert fault(one) is None


def test_placeholder_for_the_recording_is_kept(sample, processor):
    assert fault(dataclasses.replace(sample(), instructions=("hear <audio>, say it",)), processor=processor) is None


def test_bounds_of_the_encoder(sample, whisper_processor):
    assert fault(sample(30.0), processor=whisper_processor) is None
    assert fault(sample(31.0), processor=whisper_processor) == "too long: 31.0 s, at most 30 s"
    assert fault(sample(0.05), processor=whisper_processor) == "too short: 0.050 s, at least 0.1 s"
    assert fault(sample(0.05)) == "too short: 0.050 s, at least 0.1 s"


@pytest.mark.parametrize(
    "task, target, expected",
    [
        ("er", "happy", None),
        ("er", "glad", "bad label: 'glad' cannot be an answer of task er"),
        ("er", "Happy", "bad label: 'Happy' is written 'happy' in task er"),
        ("asr", "anything at all", None),
        ("sf", "date = today; time = noon", None),
        ("sf", "date = today; colour = red", "bad label: 'colour = red' cannot be an answer of task sf"),
        ("kwe", "none", None),
        ("asr", " \n", "empty label"),
        (None, "glad", None),
        ("of another bank", "glad", None),
    ],
)
def test_labels(sample, bank, task, target, expected):
    assert fault(sample(target=target, task=task), tasks=bank) == expected


def test_classes_of_the_sample_go_before_those_of_the_task(sample, bank):
    own = sample(target="calm", task="er", labels={"calm": "", "happy": ""})
    assert fault(own, tasks=bank) is None
    assert fault(dataclasses.replace(own, target="sad", answer="sad"), tasks=bank).startswith("bad label: 'sad'")


def test_silence(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16_000)
    silence = Sample(str(tmp_path / "silence.wav"), ("say it",), "red")
    assert fault(silence) == "silent: peak 0.0e+00, at least 1.0e-04"
    assert fault(silence, silence=None) is None


def test_length_that_the_row_contradicts(sample):
    @dataclasses.dataclass(frozen=True)
    class SampleOfKnownLength(Sample):
        duration: float | None = None

    def known(duration):
        return SampleOfKnownLength(sample(2.0).audio, ("say it",), "red", duration=duration)

    assert fault(known(2.08)) is None and fault(known(None)) is None
    assert fault(known(2.2)) == "another length: 2.00 s, but its row says 2.20 s"


def test_one_recording_is_heard_once_for_all_its_samples(sample, bank, monkeypatch):
    from speechverse.training.data import filters

    heard = []
    original = filters.inspect_recordings
    monkeypatch.setattr(filters, "inspect_recordings", lambda a, *rest: heard.extend(a) or original(a, *rest))
    samples = [sample(0.5), sample(0.3), sample(0.5), sample(0.4, "glad", "er")]
    check_samples(samples, FilterRules(tasks=bank))
    assert heard == [samples[0].audio, samples[1].audio]  # a bad label needs no listening


def test_nothing_left_is_an_error(sample):
    with pytest.raises(
        ValueError, match=r"None of the 1 samples can be used; the first, .*0\.05-16000\.wav: too short"
    ):
        filter_samples([sample(0.05)], FilterRules())
    assert filter_samples([], FilterRules()) == ([], [])


CORPUS = """
id: broken
title: A corpus of which a part is broken
licence: CC0-1.0
permissive: true
citation: nobody
access: it is made by a test
sources:
  - kind: jsonl
    root: $SPEECHVERSE_DATA
    files: rows.jsonl
    splits: {train: rows}
    columns: {audio: audio, key: key, emotion: emotion}
tasks:
  er: {answer: emotion}
"""
NUM_GOOD, NUM_BROKEN_OF_A_KIND = 10_000, 125


def broken_files() -> dict[str, tuple[set[str], object]]:
    """Kinds of broken recordings: the kinds of reasons that may be given, and what makes the bytes of the n-th."""
    draw = random.Random(0)
    sound = {codec: encoded(codec, noise(0.2)) for codec in ("flac", "vorbis", "opus")}
    nan = encoded("wav", np.full(3200, np.nan), subtype="FLOAT")
    no_frames, wrong_rate = encoded("wav", np.zeros(0)), encoded("wav", noise(0.2), rate=16)

    def truncated(n):
        return sound["flac"][: int(draw.uniform(0.05, 0.97) * len(sound["flac"]))]

    def bit_flipped(n):
        content = sound["vorbis" if n % 2 else "opus"]
        return flipped(content, draw.randrange(8 * len(content)))

    return {
        "truncated.flac": ({"unreadable", "truncated"}, truncated),
        "nan.wav": ({"not finite"}, lambda n: nan),
        "empty.wav": ({"empty"}, lambda n: no_frames if n % 2 else b""),
        "rate.wav": ({"wrong rate"}, lambda n: wrong_rate),
        "flipped.ogg": ({"damaged", "truncated", "unreadable"}, bit_flipped),
    }


@pytest.fixture
def broken_corpus(data_folder):
    """11,000 rows in an order drawn at random; returns the corpus and the rows, `(key, kinds of reasons)`."""
    rows = []
    for codec, ending in (("flac", "flac"), ("wav", "wav"), ("vorbis", "ogg"), ("opus", "opus")):
        template = data_folder / f"good.{ending}"
        template.write_bytes(encoded(codec, noise(0.2)))
        for n in range(NUM_GOOD // 4):
            name = f"good-{n}.{ending}"
            os.link(template, data_folder / name)
            rows.append(({"key": name, "audio": name, "emotion": "happy"}, set()))
    for kind, (reasons, content) in broken_files().items():
        for n in range(NUM_BROKEN_OF_A_KIND):
            name = f"{n}-{kind}"
            (data_folder / name).write_bytes(content(n))
            rows.append(({"key": name, "audio": name, "emotion": "sad"}, reasons))
    for n in range(NUM_BROKEN_OF_A_KIND):
        rows.append(({"key": f"{n}-gone", "audio": f"{n}-gone.flac", "emotion": "sad"}, {"not there"}))
        rows.append(({"key": f"{n}-label", "audio": "good.flac", "emotion": "glad"}, {"bad label", "Task 'er'"}))
        rows.append(('{"key": "cut off', {"not JSON"}))
    random.Random(0).shuffle(rows)
    lines = [row if isinstance(row, str) else json.dumps(row) for row, _ in rows]
    (data_folder / "rows.jsonl").write_text("\n".join(lines))
    (data_folder / "corpus.yaml").write_text(CORPUS)
    keys = [
        f"{data_folder / 'rows.jsonl'}, line {number}" if isinstance(row, str) else row["key"]
        for number, (row, _) in enumerate(rows, start=1)
    ]
    reasons = [kinds for _, kinds in rows]
    return load_corpus(str(data_folder / "corpus.yaml")), list(zip(keys, reasons, strict=True))


def test_the_good_ones_come_out_in_order_and_the_report_lists_exactly_the_broken(
    broken_corpus, bank, processor, tmp_path
):
    corpus, rows = broken_corpus
    read = list(read_samples(corpus, "train", bank))
    rejected = [dataclasses.asdict(row) for row in read if isinstance(row, RejectedRow)]
    samples = [sample for sample in read if isinstance(sample, Sample)]
    checked = check_samples(samples, FilterRules(processor, bank))

    good = [key for key, reasons in rows if not reasons]
    assert [one.sample.key for one in checked if one.fault is None] == good and len(good) == NUM_GOOD
    report = write_report(tmp_path / "run", {"train": DataPart(checked, rejected)}, bank)
    listed = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    expected = {key: reasons for key, reasons in rows if reasons}
    assert len(listed) == len(expected) == 1000 and {row["key"] for row in listed} == expected.keys()
    for row in listed:
        assert kind_of(row["reason"]) in expected[row["key"]], row
        assert (row["corpus"], row["split"]) == ("broken", "train")
    assert report["train"]["kept"] == NUM_GOOD and sum(report["train"]["dropped"].values()) == 1000

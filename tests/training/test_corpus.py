"""Every shipped corpus is read from a small copy in its own layout; a new one is a YAML file."""

import copy
import pickle
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from corpus_copies import COPIES, speak, write_audio, write_json_lines

from speechverse import TaskBank
from speechverse.processing.audio_speechverse import load_audio
from speechverse.training.data.corpus import corpus_ids, load_corpus, read_rows, texts
from speechverse.training.data.corpus_samples import load_corpus_samples, read_samples
from speechverse.training.data.corpus_shards import shard_corpus
from speechverse.training.data.recordings import open_audio
from speechverse.training.data.rows import RejectedRow
from speechverse.training.data.sample import Sample


PERMISSIVE = (
    "clinc150 commands common_voice covost2 esc10 fsdd librispeech mini_nlu_transcripts musan nlu_evaluation snips "
    "voxpopuli".split()
)
TASKS_FOLDER = Path(__file__).parents[2] / "processing" / "tasks"


@pytest.fixture
def copied(data_folder):
    """Makes the copy of a corpus; returns the corpus."""

    def copied(name):
        COPIES[name].write(data_folder)
        if COPIES[name].spoken:
            speak(load_corpus(name), data_folder / "spoken" / name)
        return load_corpus(name)

    return copied


def read(corpus, split, bank, tasks=None, **options):
    """The samples of a split, and its rejected rows."""
    items = list(read_samples(corpus, split, bank, tasks, **options))
    return [i for i in items if isinstance(i, Sample)], [i for i in items if isinstance(i, RejectedRow)]


def hear(audio):
    """A recording's waveform, at 16 kHz."""
    return load_audio(open_audio(audio), 16_000)


# Every shipped corpus


def test_every_shipped_corpus_has_a_copy():
    assert sorted(COPIES) == corpus_ids()


@pytest.mark.parametrize("name", COPIES)
def test_corpus_is_read_from_its_own_layout(name, copied, bank):
    corpus = copied(name)
    assert corpus.id == name
    for split, views in COPIES[name].expected.items():
        for view, targets in views.items():
            samples, _ = read(corpus, split, bank, [view])
            assert [sample.target for sample in samples] == targets, (split, view)


@pytest.mark.parametrize("name", COPIES)
def test_samples_are_whole(name, copied, bank):
    corpus = copied(name)
    for split in COPIES[name].expected:
        samples, rejected = read(corpus, split, bank)
        assert samples
        for sample in samples:
            task = bank[sample.task]
            assert (sample.corpus, sample.split) == (name, split) and sample.key
            assert task.parse(sample.target, sample.labels).answer == sample.answer
            for wording in sample.instructions:
                instruction = sample.instruction(wording)
                assert "{labels}" not in instruction and "{language}" not in instruction
                if "{labels}" in wording:
                    assert all(label in instruction for label in sample.labels)
            assert 0.2 <= len(hear(pickle.loads(pickle.dumps(sample.audio)))) / 16_000 <= 15
        for view in corpus.views:  # a recording is there once
            keys = [sample.key for sample in read(corpus, split, bank, [view])[0]]
            assert len(set(keys)) == len(keys)
        for row in rejected:
            assert row.corpus == name and row.split == split and row.reason


@pytest.mark.parametrize("name", COPIES)
def test_reading_again_gives_the_same(name, copied, bank):
    corpus, split = copied(name), next(iter(COPIES[name].expected))
    first, second = read(corpus, split, bank), read(load_corpus(name), split, bank)
    assert first == second


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("name", COPIES)
def test_shards_give_the_same_samples(name, kind, copied, bank, tmp_path):
    corpus, split = copied(name), next(iter(COPIES[name].expected))
    file, dropped = shard_corpus(corpus, split, tmp_path / "shards", kind, workers=1)
    (expected, _), (found, _) = read(corpus, split, bank), read(load_corpus(str(file)), split, bank)
    facts = ("target", "instructions", "values", "labels", "answer", "key", "speaker")
    assert [[getattr(s, f) for f in facts] for s in found] == [[getattr(s, f) for f in facts] for s in expected]
    assert dropped == []


@pytest.mark.parametrize("name", COPIES)
def test_missing_corpus_says_how_to_get_it(name, data_folder, bank):
    corpus = load_corpus(name)
    with pytest.raises(FileNotFoundError, match=f"^Corpus {name} is not there: .* How to get it: ") as error:
        read(corpus, next(iter(COPIES[name].expected)), bank)
    assert corpus.access.strip() in str(error.value) and "\n" not in str(error.value).strip()


@pytest.mark.parametrize("name", COPIES)
def test_views_fit_the_shipped_tasks(name, copied):
    shipped = TaskBank.from_yaml(TASKS_FOLDER)
    corpus = copied(name)
    known = [view for view, facts in corpus.views.items() if (facts.task or view) in shipped]
    if len(known) < len(corpus.views):
        pytest.skip("a task of this corpus is not shipped")
    for view in known:
        split = next(split for split, views in COPIES[name].expected.items() if views.get(view, True))
        assert read(corpus, split, shipped, [view])[0] or not COPIES[name].expected[split].get(view)


def test_licences():
    permissive = [name for name in corpus_ids() if load_corpus(name).permissive]
    assert permissive == PERMISSIVE
    assert not any("NC" in load_corpus(name).licence for name in permissive)


def test_sets_without_a_data_folder_say_so(monkeypatch, bank):
    monkeypatch.delenv("SPEECHVERSE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="SPEECHVERSE_DATA, the folder of all data, is not set"):
        read(load_corpus("ravdess"), "train", bank)


# Particular corpora


def test_second_layout_of_librispeech(data_folder, bank):
    folder = data_folder / "LibriSpeech" / "test-clean" / "61" / "70968"
    write_audio(folder / "61-70968-0000.flac")
    (folder / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\nbroken\n")
    samples, rejected = read(load_corpus("librispeech"), "test", bank, ["asr"])
    assert [(s.target, s.speaker, s.key) for s in samples] == [
        ("he began a confused complaint", "61", "61-70968-0000")
    ]
    assert samples[0].audio == str(folder / "61-70968-0000.flac")
    assert [row.reason for row in rejected] == ["not such a line: 'broken'"]


def test_accents_of_later_releases_of_common_voice(data_folder, bank):
    folder = data_folder / "common_voice" / "cv-corpus-17.0-2024-03-15" / "en"
    accents = [
        "United States English,Midwestern",
        "England English",
        "India and South Asia (India, Pakistan, Sri Lanka)",
    ]
    accents += ["Canadian English,United States English", "Dutch English"]  # of two, and of none
    lines = ["client_id\tpath\tsentence_id\tsentence\taccents"]
    lines += [f"c\t{index}.mp3\ts\tHello.\t{accent}" for index, accent in enumerate(accents)]
    folder.mkdir(parents=True)
    (folder / "test.tsv").write_text("\n".join(lines))
    samples, _ = read(load_corpus("common_voice"), "test", bank, ["ac"])
    assert [sample.target for sample in samples] == ["American", "British", "Indian"]


def test_slurp_lists_the_classes_of_a_rows_own_group(copied, bank):
    corpus = copied("slurp")
    (seen, *_), _ = read(corpus, "train_real", bank, ["ic"])
    (unseen, *_), _ = read(corpus, "test", bank, ["ic_unseen"])
    assert len(seen.labels) == 10 and "alarm_set" in seen.labels and set(unseen.labels) == {"takeaway_order"}
    assert unseen.labels["takeaway_order"] == "orders food"  # described as the task describes it


def test_samples_of_one_view_share_wordings_and_labels(copied, bank):
    samples, _ = read(copied("slurp"), "train_real", bank, ["ic"])
    assert len({id(sample.instructions) for sample in samples}) == len({id(sample.labels) for sample in samples}) == 1


def test_speakers_of_fisher_are_counted_by_turns(copied, bank):
    samples, rejected = read(copied("fisher"), "train", bank)
    counts = Counter(sample.target for sample in samples)
    assert counts["one"] == counts["two"] > 0 and not rejected
    # Every 20 s: 0.5-2.0 A, 2.2-4.0 B, 6-8 A, 12-14.5 B, of which the first two are joined where that is drawn.
    for sample in samples:
        start, end = sample.audio.start % 20, sample.audio.end % 20
        assert (start <= 1.5 and 2.6 < end <= 4) if sample.target == "two" else not start < 2.0 < 2.2 < end
    heard = samples[-1].audio.read()
    assert heard["sampling_rate"] == 8000 and heard["array"].shape[0] == 2


def test_alpacas_instruction_is_taken_as_it_is(copied, bank):
    (sample, *_), _ = read(copied("alpaca_tts"), "train", bank)
    assert sample.instruction() == "Rewrite {sentence} 1."


def test_transcripts_of_msp_podcast_that_are_not_there_are_no_error(copied, bank):
    samples, rejected = read(copied("msp_podcast"), "train", bank, ["asr"])
    assert len(samples) == 2 and not rejected


def test_recording_that_is_not_there_is_rejected(copied, data_folder, bank):
    corpus = copied("slurp")
    (data_folder / "slurp/audio/slurp_real/audio-50.flac").unlink()
    samples, rejected = read(corpus, "test", bank, ["asr"])
    assert len(samples) == 1
    assert [row.reason.split(":")[0] for row in rejected] == ["no recording"] and rejected[0].key == "audio-50.flac"


def test_hub_corpus_can_be_streamed(copied, bank):
    corpus = copied("librispeech")
    stored, streamed = (read(corpus, "train", bank, streaming=streaming)[0] for streaming in (False, True))
    assert [(s.key, s.target, s.instruction()) for s in streamed] == [
        (s.key, s.target, s.instruction()) for s in stored
    ]
    assert all((hear(a.audio) == hear(b.audio)).all() for a, b in zip(stored, streamed, strict=True))


def test_sentences_are_written_to_be_spoken(copied, tmp_path):
    from speechverse.training.data.sentences import write_sentences

    copied("alpaca_tts")
    assert write_sentences("alpaca_tts", tmp_path / "out.jsonl") == {"train": 38, "validation": 3}  # one has no input
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 41
    with pytest.raises(ValueError, match="Corpus ravdess has recordings of its own"):
        list(texts(load_corpus("ravdess")))


# One's own corpus


OWN = {
    "id": "calls",
    "title": "Our calls",
    "licence": "CC0-1.0",
    "permissive": True,
    "citation": "nowhere",
    "access": "Ask us.",
    "sources": [
        {
            "kind": "jsonl",
            "root": "$SPEECHVERSE_DATA/calls",
            "files": "calls.jsonl",
            "splits": {"train": {"part": "a|b"}, "test": {"part": "c"}},
            "columns": {"audio": "wav", "text": "words", "mood": "mood", "part": "part"},
        }
    ],
    "tasks": {"asr": {"answer": "text"}, "er": {"answer": "mood"}},
}


def changed(*path, **values):
    """The facts with some of them changed, or taken out (`None`)."""
    facts = copy.deepcopy(OWN)
    part = facts
    for step in path:
        part = part[step]
    for name, value in values.items():
        part.pop(name, None)
        if value is not None:
            part[name] = value
    return facts


@pytest.fixture
def own(data_folder, tmp_path):
    """Writes a corpus of one's own: its YAML file, and its rows. Returns the file."""

    def own(facts=OWN, rows=()):
        for row in rows:
            if row.get("wav") and not (data_folder / "calls" / row["wav"]).exists():
                write_audio(data_folder / "calls" / row["wav"])
        write_json_lines(data_folder / "calls" / "calls.jsonl", *rows)
        file = tmp_path / "calls.yaml"
        file.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
        return str(file)

    return own


def rows_of(number):
    return [{"wav": f"{i}.wav", "words": f"call {i}", "mood": "happy", "part": "abc"[i % 3]} for i in range(number)]


def test_own_corpus_is_a_file(own, bank):
    corpus = load_corpus(own(rows=rows_of(6)))
    samples, rejected = load_corpus_samples(corpus, "train", bank)
    assert [sample.target for sample in samples] == [w for i in (0, 1, 3, 4) for w in (f"call {i}", "happy")]
    assert samples[0].key == "train/0" and samples[2].key == "train/1" and not rejected


def test_limit_draws_from_the_whole_split(own, bank):
    corpus = load_corpus(own(rows=rows_of(300)))
    few, _ = load_corpus_samples(corpus, "train", bank, limit=20)
    again, _ = load_corpus_samples(corpus, "train", bank, limit=20)
    assert few == again and len(few) == 40
    numbers = [int(sample.target.split()[1]) for sample in few if sample.task == "asr"]
    assert numbers == sorted(numbers) and len(set(numbers)) == 20 and max(numbers) > 200
    assert len(load_corpus_samples(corpus, "train", bank, ["asr"], limit=1000)[0]) == 200


def test_held_out_prompts(own, bank):
    corpus = load_corpus(own(rows=rows_of(3)))
    (sample, *_), _ = load_corpus_samples(corpus, "train", bank, ["asr"], prompts="held_out")
    assert sample.instruction() == "Never trained on: Write down what is said."
    with pytest.raises(ValueError, match="prompts is 'both'; it is one of trained, held_out"):
        list(read_samples(corpus, "train", bank, prompts="both"))


def test_wordings_of_a_views_own_are_held_out_too(own, bank):
    facts = changed("tasks", "er", instruction="How is it? {labels}", held_out_instruction=["What mood? {labels}"])
    corpus = load_corpus(own(facts, rows_of(1)))
    (trained,), _ = read(corpus, "train", bank, ["er"])
    (held_out,), _ = read(corpus, "train", bank, ["er"], prompts="held_out")
    assert (trained.instructions, held_out.instructions) == (("How is it? {labels}",), ("What mood? {labels}",))
    corpus = load_corpus(own(changed("tasks", "er", instruction="How is it? {labels}")))
    with pytest.raises(
        ValueError, match=r"calls\.yaml: tasks\.er: it has an instruction of its own and no held_out_inst"
    ):
        read(corpus, "train", bank, ["er"], prompts="held_out")


def test_own_wordings_that_are_shipped_are_several_and_held_out_too():
    dc = load_corpus("clinc150").views["dc"]
    assert len(dc.instruction) >= 6 and len(dc.held_out_instruction) >= 3
    assert all("{labels}" in wording for wording in dc.instruction + dc.held_out_instruction)


@pytest.mark.parametrize("name", COPIES)
def test_views_for_tests_are_not_trained_on_unless_they_are_named(name, copied, bank):
    corpus = copied(name)
    kept_back = {view for view in corpus.views if view.endswith(("_unseen", "_all")) or view == "er_8"}
    taken = {sample.view for split in COPIES[name].expected for sample in read(corpus, split, bank)[0]}
    assert {view for view, facts in corpus.views.items() if not facts.default} == kept_back
    assert taken and not taken & kept_back


def test_limit_is_of_each_view(own, bank):
    tasks = {f"st_{x}": {"task": "st", "answer": "text", "values": {"language": x}} for x in ("German", "French")}
    corpus = load_corpus(own(changed(tasks=tasks), rows_of(30)))
    samples, _ = load_corpus_samples(corpus, "train", bank, limit=5)
    assert [[s.view for s in samples].count(name) for name in tasks] == [5, 5]


# Several tasks at once


def test_tasks_are_asked_together(own, bank):
    corpus = load_corpus(own(changed("tasks", "er", where={"mood": "(?!no).*"}), rows_of(4)))
    samples, rejected = read(corpus, "train", bank, [], joint=[["asr", "er"]])
    assert [sample.target for sample in samples] == [f"ASR: call {i} | ER: happy |" for i in (0, 1, 3)]
    sample = samples[0]
    assert (sample.task, sample.view, sample.tasks) == ("asr+er", "asr+er", ("asr", "er"))
    assert sample.answer == {"asr": "call 0", "er": "happy"} and sample.key == "train/0" and not rejected
    assert sample.instruction() == bank.joint(["asr", "er"]).instruction()
    copy_of_it = pickle.loads(pickle.dumps(sample))
    assert copy_of_it == sample and copy_of_it.joint.parse(sample.target, sample.labels).answer == sample.answer
    drawn = [sample.draw_instruction(random.Random(seed)) for seed in range(400)]
    assert drawn == [copy_of_it.draw_instruction(random.Random(seed)) for seed in range(400)]
    assert all("=== Task: ASR === Write down what is said. === Task: ER === " in text for text in drawn)
    assert len(set(drawn)) > 60  # 2 wordings, with and without descriptions, 24 orders of the classes
    both, _ = read(corpus, "train", bank, ["asr"], joint=[["er", "asr"]])
    assert [sample.view for sample in both] == ["asr", "er+asr"] * 3


def test_tasks_together_need_rows_that_serve_all_of_them(own, bank):
    rows = rows_of(1) + [
        {"wav": "1.wav", "words": "call", "mood": "", "part": "a"},  # which `where` leaves out
        {"wav": "2.wav", "words": "call", "mood": "bored", "part": "a"},
        {"wav": "3.wav", "words": "a | ER: sad | b", "mood": "sad", "part": "a"},
    ]
    corpus = load_corpus(own(changed("tasks", "er", where={"mood": ".+"}), rows))
    samples, rejected = read(corpus, "train", bank, [], joint=[["asr", "er"]])
    assert [sample.key for sample in samples] == ["train/0"]
    assert [(row.key, row.task, row.reason.split(":")[0]) for row in rejected] == [
        ("train/2", "asr+er", "bad label"),
        ("train/3", "asr+er", "no joint answer"),
    ]
    facts = changed(tasks={"a": {"task": "asr", "answer": "text"}, "b": {"task": "asr", "answer": "text"}})
    with pytest.raises(ValueError, match="holds a task twice"):
        read(load_corpus(own(facts)), "train", bank, joint=[["a", "b"]])


def test_joint_wordings_are_held_out(own, bank):
    (sample,), _ = read(
        load_corpus(own(rows=rows_of(1))), "train", bank, [], prompts="held_out", joint=[["asr", "er"]]
    )
    assert sample.instruction().count("Never trained on") == 2


def test_rows_that_give_nothing_are_named_with_the_reason(own, bank, data_folder):
    rows = [
        *rows_of(1),
        {"wav": "1.wav", "words": "", "mood": "bored", "part": "a"},
        {"wav": "", "words": "x", "mood": "sad", "part": "a"},
        {"wav": "3.wav", "mood": "sad", "part": "a"},
    ]
    file = own(rows=rows)
    with (data_folder / "calls" / "calls.jsonl").open("a") as stream:
        stream.write('{"wav": \n[1]\n')
    samples, rejected = load_corpus_samples(load_corpus(file), "train", bank)
    assert [sample.target for sample in samples] == ["call 0", "happy"]
    reasons = {(row.key.split("/")[-1], row.task): row.reason for row in rejected}
    assert reasons["1", "asr"] == "no answer: column text is empty"
    assert reasons["1", "er"].startswith("bad label: Task 'er': 'bored' is no label answer")
    assert reasons["2", None] == "column audio is empty"
    assert reasons["3", None] == "column words is missing"
    assert reasons["calls.jsonl, line 5", None].startswith("not JSON")
    assert reasons["calls.jsonl, line 6", None] == "not an object: list"
    assert len(rejected) == 6 and {row.corpus for row in rejected} == {"calls"}


def test_nothing_left_is_an_error_with_the_first_reason(own, bank):
    corpus = load_corpus(own(rows=[{"wav": "0.wav", "words": " ", "mood": "", "part": "a"}]))
    with pytest.raises(ValueError, match="Corpus calls has no sample in train; the first of 2 rejected rows, train/0"):
        load_corpus_samples(corpus, "train", bank)


@pytest.mark.parametrize(
    "facts, message",
    [
        (changed(licence=None), "key licence is missing"),
        (changed(licenses="CC0"), "unknown key licenses; known are id, title, licence"),
        (changed(permissive="yes"), "key permissive is 'yes'; it should be true or false"),
        (changed(speech="sung"), "speech is 'sung'; it is one of recorded, synthetic, mixed"),
        (changed(sources=[]), "at least one of sources"),
        (changed("sources", 0, kind="zip"), r"sources\[0\]: key kind is 'zip'; it is one of hub, parquet"),
        (changed("sources", 0, file="x"), r"sources\[0\]: unknown key file"),
        (changed("sources", 0, files=None), r"sources\[0\]: key files is missing"),
        (changed("sources", 0, files=3), r"sources\[0\]: key files is 3; it should be a text or a list"),
        (changed("sources", 0, pattern="("), r"sources\[0\]: key pattern is no regular expression"),
        (changed("sources", 0, "columns", text="$1"), r"key columns\.text is '\$1', whose \$ is followed by no name"),
        (changed("sources", 0, "columns", text={"of": 1}), r"key columns\.text is .* with value or optional alone"),
        (changed("sources", 0, "splits", train={"part": "("}), r"key splits\.train\.part is no regular expression"),
        (
            changed("sources", 0, "splits", train={"tail": "x"}),
            r"key splits\.train asks for 'tail', which is none of columns",
        ),
        (
            changed(tasks={"asr": {"answer": "words"}}),
            "tasks.asr reads words, which no column and no derivation gives",
        ),
        (changed("tasks", "asr", where={"text": "["}), r"tasks\.asr: key where\.text is no regular expression"),
        (changed("tasks", "asr", labels=[1]), r"tasks\.asr: key labels is \[1\]"),
        (changed("tasks", "asr", default="no"), r"tasks\.asr: key default is 'no'; it should be true or false"),
        (
            changed("tasks", "asr", instruction=["a", "b"], held_out_instruction="b"),
            r"tasks\.asr: the wording 'b' is both trained on and held out",
        ),
        (changed("tasks", "asr", values={"x": "$"}), r"tasks\.asr: key values\.x is '\$'"),
        (changed(derive=["rhymes"]), r"derive\[0\]: unknown derivation 'rhymes'; known are lowercase"),
        (changed(derive=[{"bins": {"column": "text"}}]), r"derive\[0\], bins: key cuts, labels is missing"),
        (
            changed(derive=[{"keywords": {"column": "text", "number": "3"}}]),
            r"keywords: key number is '3'; .* whole number",
        ),
        (changed(derive=[{"match_labels": {"column": "text", "labels": {"a": "("}}}]), "no regular expression"),
        ("just text", "is str, not a mapping"),
    ],
)
def test_mistakes_are_named_with_file_and_field(facts, message, own):
    with pytest.raises(ValueError, match=rf"calls\.yaml.*{message}"):
        load_corpus(own(facts))


def test_file_that_is_no_yaml(tmp_path):
    (tmp_path / "bad.yaml").write_text("id: [")
    with pytest.raises(ValueError, match="bad.yaml is not YAML"):
        load_corpus(str(tmp_path / "bad.yaml"))


def test_corpus_that_is_not_shipped():
    with pytest.raises(FileNotFoundError, match="There is no corpus 'timit'; .* one of alpaca_tts, clinc150"):
        load_corpus("timit")


@pytest.mark.parametrize(
    "facts, split, tasks, message",
    [
        (OWN, "dev", None, "has no split 'dev'; it has train, test"),
        (OWN, "train", ["st"], "Corpus calls serves no task 'st'; it serves asr, er"),
        (
            changed(tasks={"smell": {"answer": "text"}}),
            "train",
            None,
            "tasks.smell names the task 'smell'; known are asr",
        ),
        (changed(tasks={"st": {"answer": "text"}}), "train", None, "tasks.st.values lacks language"),
        (
            changed("tasks", "asr", values={"langauge": "German"}),
            "train",
            None,
            "tasks.asr.values has langauge, which no prompt of asr asks for",
        ),
        (
            changed(tasks={"asr": {"answer": "text", "default": False}}),
            "train",
            None,
            "No task of corpus calls is chosen; it serves asr",
        ),
        (OWN, "train", [], "No task of corpus calls is chosen"),
    ],
)
def test_wishes_that_do_not_fit(facts, split, tasks, message, own, bank):
    with pytest.raises(ValueError, match=message):
        read(load_corpus(own(facts, rows_of(3))), split, bank, tasks)


# Samples


def test_instruction_is_drawn_uniformly_with_and_without_descriptions():
    labels = {"red": "like blood", "blue": ""}
    sample = Sample("a.wav", ("Which of {labels}?", "Choose: {labels}."), "red", values={}, labels=labels)
    drawn = [sample.draw_instruction(random.Random(seed)) for seed in range(4000)]
    listed = ["red or blue", "blue or red", "red (like blood); or blue", "blue; or red (like blood)"]
    expected = {text for classes in listed for text in (f"Which of {classes}?", f"Choose: {classes}.")}
    assert set(drawn) == expected
    assert all(abs(drawn.count(text) - 500) < 92 for text in expected)  # 4.4 standard deviations
    assert {sample.instruction(describe=True) for _ in range(9)} == {"Which of red (like blood); or blue?"}


def test_wordings_without_values_are_literal():
    sample = Sample("a.wav", ("Say {this}.",), "yes")
    assert sample.draw_instruction(random.Random(0)) == "Say {this}." and sample.answer == "yes"


def test_files_of_the_package_hold_no_path_of_a_machine():
    for name in corpus_ids():
        for source in load_corpus(name).sources + load_corpus(name).texts:
            for root in [source["root"]] if isinstance(source.get("root", []), str) else source.get("root", []):
                assert root.startswith("$SPEECHVERSE_DATA/")


def test_corpora_that_are_spoken_by_tts_say_so():
    """Their recordings lie where `synthesize.py` is told to write."""
    for name in corpus_ids():
        corpus = load_corpus(name)
        if all("/spoken/" in str(source.get("root")) for source in corpus.sources):
            assert corpus.speech == "synthetic", name
    assert load_corpus("librispeech").speech == load_corpus("fsdd").speech == "recorded"
    assert load_corpus("mini_speaker_counting").speech == load_corpus("mini_speech_detection").speech == "mixed"


@pytest.mark.parametrize("split", ["test", "train"])
def test_training_split_is_counted_once_for_all_derivations(split, data_folder, monkeypatch):
    rows = [{"x": label, "split": split} for split in ("train", "test") for label in "aab"]
    write_json_lines(data_folder / "rows.jsonl", *rows)
    facts = {"id": "c", "title": "c", "licence": "CC0-1.0", "permissive": True, "citation": "c", "access": "c"}
    source = {
        "kind": "jsonl",
        "root": str(data_folder),
        "files": "rows.jsonl",
        "columns": {"x": "x", "text": "x", "split": "split"},
    }
    source["splits"] = {name: {"split": name} for name in ("train", "test")}
    derive = [
        {"seen_unseen": {"column": "x", "most_frequent": 1, "into": f"g{number}", "classes": f"l{number}"}}
        for number in range(4)
    ]
    (data_folder / "c.yaml").write_text(
        yaml.safe_dump(facts | {"sources": [source], "derive": derive, "tasks": {"asr": {"answer": "text"}}})
    )
    corpus = load_corpus(str(data_folder / "c.yaml"))
    [source] = corpus.built_sources
    passes, original = [], type(source).raw_rows
    monkeypatch.setattr(type(source), "raw_rows", lambda *args: passes.append(args) or original(*args))
    found = list(read_rows(corpus, source, split, {f"g{number}" for number in range(4)}, streaming=False))
    assert [row["g3"] for row in found] == ["seen", "seen", "unseen"] and found[0]["text"] == "a"
    assert len(passes) == 2  # to count, and to read

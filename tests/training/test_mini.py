"""The mini corpus: made, counted in two ways, and compared split by split."""

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import soundfile
from corpus_copies import COPIES

from speechverse import TaskBank
from speechverse.training.arguments import parse_run_config
from speechverse.training.data import make_mini as module
from speechverse.training.data.generated_noise import KINDS, generate_noise
from speechverse.training.data.make_mini import (
    REAL_SPEECH,
    TEXTS,
    are_there,
    choose_sentences,
    is_held_out,
    link_sources,
    make_mini,
    make_sounds,
    other_sentences,
    plan_voices,
    speak_again,
    speech_recordings,
    stratified,
)
from speechverse.training.data.overlaps import overlaps, plain_text
from speechverse.training.data.prepare import prepare
from speechverse.training.data.run_sources import load_source
from speechverse.training.data.sentences import write_sentences
from speechverse.training.data.synthesize import synthesize
from speechverse.training.data.tts_engines import VOICES, installed_voices


CONFIGS = Path(module.__file__).parents[1] / "configs"
TASKS = TaskBank.from_yaml(Path(__file__).parents[2] / "processing" / "tasks")
TIMBRES = {voice.timbre for voice in installed_voices("en")}
TTS_TASKS = {"asr", "st", "ic", "sf", "kwe", "kws", "ac", "sc", "sns"}
SHARED = Path(os.environ.get("SPEECHVERSE_DATA", "nowhere"))
NO_VOICES = "no engine is installed that has enough voices"


def read_lines(file):
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Commands alone, by the two voices that a package brings."""
    pytest.importorskip("py_nanotts")
    folder = tmp_path_factory.mktemp("mini")
    make_mini(folder, num_sentences=60, voices=["nanotts:en-US", "nanotts:en-GB"])
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Commands alone, by all voices: some are held out."""
    if not is_held_out(plan_voices()[0]):
        pytest.skip(NO_VOICES)
    folder = tmp_path_factory.mktemp("held_out")
    make_mini(folder, num_sentences=60)
    return folder


@pytest.fixture
def report(monkeypatch, foundations, tmp_path):
    """What prepare.py says of a configuration's data."""

    def report(config, folder):
        monkeypatch.setenv("SPEECHVERSE_DATA", str(folder))
        monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(foundations))
        bases = ["--audio_base", "tiny-wavlm", "--text_base", "tiny-t5", "--lora_target_modules", "q", "v"]
        run = parse_run_config([str(CONFIGS / config), *bases])
        problems = prepare(run, tmp_path / "report", workers=1)
        assert problems == []
        return run, json.loads((tmp_path / "report" / "data_report.json").read_text(encoding="utf-8"))

    return report


def check_counts(run, report, expected_of):
    """The report's counts are those of an independent reading."""
    for name, sources in (("train", run.train_data), ("eval", run.eval_data), ("test", run.test_data)):
        places = report[name]["corpora"]
        assert set(places) == {f"{source.corpus}/{source.split}" for source in sources}
        expected, seconds, limited = defaultdict(Counter), Counter(), set()
        for source in sources:
            for view in source.tasks or ["sc" if "counting" in source.corpus else "sns"]:
                durations = expected_of(source.corpus, source.split, view)
                expected[f"{source.corpus}/{source.split}"][view] += min(
                    len(durations), source.limit or len(durations)
                )
                seconds[view] += sum(durations)
                if source.limit is not None and source.limit < len(durations):
                    limited.add(view)  # which ones are drawn is not this test's business
        for place, counts in expected.items():
            found = {task: facts["kept"] + sum(facts["dropped"].values()) for task, facts in places[place].items()}
            assert found == dict(counts), place
        # Hours are of what is kept; a few rows have no keyword.
        for task, total in seconds.items():
            facts = report[name]["tasks"][task]
            dropped = sum(sum(f["dropped"].values()) for of in places.values() for t, f in of.items() if t == task)
            assert facts["kept"] + dropped == sum(counts[task] for counts in expected.values())
            if not dropped and task not in limited:
                assert facts["hours"] == pytest.approx(total / 3600, rel=2e-3, abs=2e-4), task


def tasks_of(part):
    """The tasks behind the views of a report: `st` behind `st_de`, `ic` behind `dc`."""
    return {view.split("_")[0].replace("dc", "ic") for view in part["tasks"]}


def commands_of(folder, corpus, split, view):
    """Seconds of a view's recordings, from the manifests alone."""
    if corpus == "mini_speaker_counting":
        rows = [row for file in folder.glob("counting/*/manifest.jsonl") for row in read_lines(file)]
    else:
        part = {"mini_speech_detection": "detection"}.get(corpus, f"spoken/{corpus}")
        rows = read_lines(folder / part / "manifest.jsonl")
    rows = [row for row in rows if row["split"] == split]
    if corpus == "commands":
        unseen = ("colour_light", "call_off", "order_item")
        chosen = {
            "ic": lambda row: row["intent"] not in unseen,
            "ic_unseen": lambda row: row["intent"] in unseen,
            "ac": lambda row: row["accent"] != "Caribbean",
        }.get(view, lambda row: True)
        rows = [row for row in rows if chosen(row)]
    return [row["duration"] for row in rows]


def test_counts_of_commands_equal_an_independent_count(small, report):
    run, found = report("mini_commands.yaml", small)
    check_counts(run, found, lambda *view: commands_of(small, *view))
    assert tasks_of(found["train"]) == tasks_of(found["eval"]) == TTS_TASKS
    labels = {task: facts["labels"] for task, facts in found["train"]["tasks"].items()}
    intents = Counter(
        row["intent"] for row in read_lines(small / "spoken/commands/manifest.jsonl") if row["split"] == "train"
    )
    assert labels["ic"] == intents
    assert labels["sns"]["speech"] == labels["sns"]["not speech"] and labels["sc"]["one"] == labels["sc"]["two"]
    assert all(labels["ac"].values())


def test_counts_where_voices_are_held_out(held_out, report):
    run, found = report("mini_commands.yaml", held_out)
    check_counts(run, found, lambda *view: commands_of(held_out, *view))
    assert tasks_of(found["train"]) == TTS_TASKS


def check_nothing_held_out_is_in_train(folder, config, monkeypatch):
    """Counts what the splits share: timbres, speakers, sentences, sources, prompts, unseen classes."""
    monkeypatch.setenv("SPEECHVERSE_DATA", str(folder))
    spoken = [row for file in folder.glob("spoken/*/manifest.jsonl") for row in read_lines(file)]
    pieces = read_lines(folder / "pieces/manifest.jsonl")
    for counts in overlaps([*spoken, *pieces]).values():
        assert counts == {"voice": 0, "timbre": 0, "text": 0}
    counted = [
        {"split": row["split"], "speaker": speaker}
        for file in folder.glob("counting/*/manifest.jsonl")
        for row in read_lines(file)
        for speaker in row["speakers"]
    ]
    assert all(counts == {"speaker": 0} for counts in overlaps(counted, ("speaker",)).values())
    detected = read_lines(folder / "detection/manifest.jsonl")
    detected += [{"split": row["split"], "source": row["noise"]} for row in detected if "noise" in row]
    assert all(counts == {"source": 0} for counts in overlaps(detected, ("source",)).values())
    # The noises behind sentences are those of training.
    behind = {Path(row["noise"]).name for row in spoken if row.get("noise")}
    kept = {Path(row["source"]).name for row in detected if row["split"] != "train"}
    assert behind and not behind & kept

    run = parse_run_config([str(CONFIGS / config)])
    train = [sample for source in run.train_data for sample in load_source(source, TASKS)[0]]
    trained = {wording for sample in train for wording in sample.instructions}
    heard = {sample.target for sample in train if sample.task == "ic"}
    for source in run.eval_data + run.test_data:
        samples = load_source(source, TASKS)[0]
        if source.prompts == "held_out" or source.tasks == ["dc"]:
            asked = {wording for sample in samples for wording in sample.instructions}
            assert not asked & trained, source
        if source.tasks and ("dc" in source.tasks or source.corpus == "snips"):
            assert not {sample.target for sample in samples} & heard
    unseen = [
        sample.target
        for source in run.test_data
        if "ic_unseen" in (source.tasks or [])
        for sample in load_source(type(source)(source.corpus, source.split, ["ic_unseen"]), TASKS)[0]
    ]
    assert unseen and not set(unseen) & heard
    audio = {str(sample.audio) for sample in train}
    assert not audio & {
        str(s.audio) for source in run.eval_data + run.test_data for s in load_source(source, TASKS)[0]
    }
    return spoken


def test_nothing_held_out_is_in_train(held_out, monkeypatch):
    spoken = check_nothing_held_out_is_in_train(held_out, "mini_commands.yaml", monkeypatch)
    assert {row["voice_split"] for row in spoken if row["split"] == "test"} == {"held-out"}
    assert {row["voice_split"] for row in spoken if row["split"] != "test"} == {"seen"}


def sentences_to_speak_again():
    rows = [
        {
            "text": f"Dog number {n} runs.",
            "de": f"Hund Nummer {n} läuft.",
            "fr": "",
            "split": "test",
            "sentence": f"test/{n}",
        }
        for n in range(12)
    ]
    return [*rows, {"text": "A cat.", "de": "Eine Katze.", "fr": "", "split": "train", "sentence": "train/0"}]


def test_test_sentences_are_spoken_again_by_both_kinds_of_voices_and_in_german(tmp_path):
    plan, _ = plan_voices()
    if not is_held_out(plan) or not installed_voices("de"):
        pytest.skip(NO_VOICES)
    made = speak_again(sentences_to_speak_again(), 60, tmp_path, plan)
    rows, german = read_lines(made["voices"]), read_lines(made["spoken/multi30k_german"])
    spoken = defaultdict(dict)
    for row in rows:
        spoken[row["sentence"]][row["voice_split"]] = row
    assert len(german) == len(spoken) == 8 and all(pair.keys() == {"seen", "held-out"} for pair in spoken.values())
    for pair in spoken.values():
        assert pair["seen"]["text"] == pair["held-out"]["text"] and pair["seen"]["split"] == "test"
    kinds = {kind: {pair[kind]["timbre"] for pair in spoken.values()} for kind in ("seen", "held-out")}
    assert kinds["seen"] == {voice.timbre for voice in plan["train"]}
    assert kinds["held-out"] == {voice.timbre for voice in plan["test"]}
    assert {row["sentence"] for row in german} == spoken.keys()
    assert all(row["text"].startswith("Hund") and row["en"].startswith("Dog") for row in german)
    assert {row["language"] for row in german} == {"de"}
    if len({voice.timbre for voice in installed_voices("de")} - kinds["seen"]):
        assert not {row["timbre"] for row in german} & kinds["seen"]
    assert all(row.get("snr") is None and row["speed"] == 1 for row in rows + german)


def test_without_voices_held_out_none_are_compared(tmp_path):
    pytest.importorskip("py_nanotts")
    plan, _ = plan_voices(["nanotts:en-US", "nanotts:en-GB"])
    made = speak_again(sentences_to_speak_again(), 60, tmp_path, plan)
    assert made.keys() == {"spoken/multi30k_german"} and not (tmp_path / "voices").exists()


def test_few_voices_are_not_said_to_be_held_out(small):
    rows = read_lines(small / "spoken/commands/manifest.jsonl")
    assert not any("voice_split" in row for row in rows)
    assert all(counts["text"] == 0 for counts in overlaps(rows).values())
    plan, why = plan_voices(["nanotts:en-US", "nanotts:en-GB"])
    assert not is_held_out(plan) and why.startswith("No voice is held out: 2 timbres are too few")


@pytest.mark.skipif(len(TIMBRES) < 8, reason=NO_VOICES)
def test_splits_have_timbres_of_their_own():
    plan, why = plan_voices()
    assert why is None and is_held_out(plan)
    timbres = [{voice.timbre for voice in plan[split]} for split in plan]
    assert (
        sum(map(len, timbres))
        == len(set.union(*timbres))
        == len({v.timbre for v in VOICES.values() if v.language == "en"})
    )


def test_pairs_differ_in_nothing_but_speech(small):
    rows = read_lines(small / "detection/manifest.jsonl")
    pairs = defaultdict(list)
    for row in rows:
        pairs[row["pair"]].append(row)
    shared = ("duration", "narrow", "level", "snr", "rt60", "noise", "split")
    for pair in pairs.values():
        assert [row["target"] for row in pair] == ["speech", "not speech"]
        assert all(pair[0].get(name) == pair[1].get(name) for name in shared)
        infos = [soundfile.info(small / "detection" / row["audio"]) for row in pair]
        assert len({(info.frames, info.samplerate) for info in infos}) == 1
    for name in ("snr", "rt60"):
        share = sum(name in row for row in rows) / len(rows)
        assert 0.2 < share < 0.8


def test_no_clip_is_cut_by_digital_silence(small):
    shares = defaultdict(list)
    for row in read_lines(small / "detection/manifest.jsonl"):
        wave, _ = soundfile.read(small / "detection" / row["audio"], dtype="int16")
        shares[row["target"]].append((wave == 0).mean())
    assert all(max(found) < 0.1 for found in shares.values())


def test_half_of_the_sentences_are_clean(small):
    rows = read_lines(small / "spoken/commands/manifest.jsonl")
    clean = sum(row.get("snr") is None and row.get("rt60") is None for row in rows) / len(rows)
    assert 0.25 < clean < 0.75


def test_made_again_it_is_the_same_and_nothing_is_made_twice(small):
    before = {file: file.stat().st_mtime_ns for file in small.rglob("*.flac")}
    manifests = {file: file.read_bytes() for file in small.rglob("manifest.jsonl")}
    make_mini(small, num_sentences=60, voices=["nanotts:en-US", "nanotts:en-GB"])
    assert {file: file.stat().st_mtime_ns for file in small.rglob("*.flac")} == before
    assert {file: file.read_bytes() for file in small.rglob("manifest.jsonl")} == manifests


def test_sentences_are_chosen_by_their_classes():
    rows = [{"intent": "a"}] * 80 + [{"intent": "b"}] * 20
    assert Counter(row["intent"] for row in stratified(rows, 10, "seed")) == {"a": 8, "b": 2}
    assert stratified(rows, 500, "seed") == rows


def test_generated_sounds_are_sounds():
    for kind in KINDS:
        wave = generate_noise(kind, 1.0, 0, "one")
        assert wave.shape == (16_000,) and abs(abs(wave).max() - 0.5) < 1e-3
        assert (wave == generate_noise(kind, 1.0, 0, "one")).all()
        assert (wave != generate_noise(kind, 1.0, 0, "two")).any()


def test_source_without_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds none of texts, real_speech, snips, .*, esc10: give the folder above"):
        make_mini(tmp_path / "out", source=tmp_path)


def test_corpora_are_taken_as_they_are_published(tmp_path, monkeypatch):
    published, folder = tmp_path / "published", tmp_path / "data"
    for name in (*TEXTS, *REAL_SPEECH):
        COPIES[name].write(published)
    folder.mkdir()
    monkeypatch.setenv("SPEECHVERSE_DATA", str(folder))
    assert not are_there(TEXTS) and not are_there(REAL_SPEECH)
    link_sources(published, folder)
    assert are_there(TEXTS) and are_there(REAL_SPEECH)
    chosen = choose_sentences(7_750, written=True)
    assert [row["text"] for row in chosen["snips"] if row["split"] == "train"] == []  # validation has them too
    assert {row["text"] for row in chosen["clinc150"]} == {"tell me a joke", "why is it so"}
    assert {row["de"] for row in chosen["multi30k"] if row["split"] == "test"} >= {"test_2016_flickr."}
    sounds = {Path(row["audio"]).name: (row["split"], row["turn"]) for row in make_sounds(folder, True, seed=0)}
    assert sounds["1-100032-A-0.wav"] == ("train", "dog_bark") and sounds["4-100033-A-41.wav"] == ("test", "chainsaw")
    assert sounds["2-100039-A-1.wav"] == ("train", "rooster") and "1-100038-A-14.wav" not in sounds
    assert {row["turn"] for row in speech_recordings([], real=True)} == {"ravdess", "fsdd"}


@pytest.mark.parametrize(("there", "missing"), [(["snips", "multi30k"], "nlu_evaluation"), (["esc10"], "ravdess")])
def test_what_is_missing_among_others_says_how_to_get_it(there, missing, tmp_path):
    for name in there:
        COPIES[name].write(tmp_path / "published")
    with pytest.raises(FileNotFoundError, match=f"{missing} is not there.*How to get it: "):
        make_mini(tmp_path / "data", source=tmp_path / "published")
    assert not (tmp_path / "data" / "spoken").exists()  # it is said before anything is spoken


# The whole


@pytest.mark.skipif(not ((SHARED / "texts").is_dir() and (SHARED / "real_speech").is_dir()), reason="no shared data")
@pytest.mark.slow
def test_all_eleven_tasks(tmp_path, report, monkeypatch):
    if not is_held_out(plan_voices()[0]):
        pytest.skip(NO_VOICES)
    shared = SHARED.resolve()
    make_mini(tmp_path / "data", source=shared, num_sentences=1200)
    folder = tmp_path / "data"
    run, found = report("mini.yaml", folder)
    eleven = TTS_TASKS | {"er", "asc"}
    assert tasks_of(found["train"]) == tasks_of(found["eval"]) == eleven
    real = read_lines(shared / "real_speech/manifest.jsonl")

    def seconds(corpus, split, view):
        if corpus == "ravdess":
            actors = {"mini_train": range(1, 17), "mini_validation": range(17, 19), "mini_test": range(19, 21)}[split]
            feelings = {"er": "neutral happy sad angry", "asc": "neutral calm happy sad angry fearful disgust"}[view]
            return [
                row["duration"]
                for row in real
                if row["corpus"] == corpus
                and int(row["speaker"][-2:]) in actors
                and row["emotion"] in feelings.split()
            ]
        if corpus == "fsdd":
            takes = {"mini_train": range(5, 40), "mini_validation": range(40, 45), "mini_test": range(45, 50)}[split]
            rows = [row for row in real if row["corpus"] == corpus]
            return [row["duration"] for row in rows if int(Path(row["audio"]).stem.split("_")[-1]) in takes]
        if corpus == "nlu_evaluation" and view != "asr":
            return nlu_seconds(folder, split, view)
        if corpus == "clinc150":
            rows = read_lines(folder / "spoken/clinc150/manifest.jsonl")
            return [row["duration"] for row in rows if row["split"] == split and row["intent"] != "oos"]
        return commands_of(folder, corpus, split, view)

    check_counts(run, found, seconds)
    check_nothing_held_out_is_in_train(folder, "mini.yaml", monkeypatch)


def nlu_seconds(folder, split, view):
    rows = read_lines(folder / "spoken/nlu_evaluation/manifest.jsonl")
    classes = {
        "ic": lambda row: {row["intent"]},
        "sf": lambda row: {slot["label"] for slot in row["slots"]},
    }[view.split("_")[0]]
    counts = Counter(
        label
        for row in rows
        if row["split"] == "train"
        for label in ([row["intent"]] if view.startswith("ic") else [slot["label"] for slot in row["slots"]])
    )
    number = 10 if view.startswith("ic") else 4
    seen = set(sorted(counts, key=lambda label: (-counts[label], label))[:number])
    wanted = [row for row in rows if row["split"] == split and classes(row)]
    return [
        row["duration"]
        for row in wanted
        if (not classes(row) & seen if view.endswith("unseen") else classes(row) <= seen)
    ]


def test_written_sentences_can_be_spoken(small, tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    row = {"text": "play jazz", "intent": "PlayMusic", "slots": [], "split": "train"}
    (tmp_path / "texts" / "snips.jsonl").write_text(json.dumps(row))
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    write_sentences("snips", tmp_path / "snips.jsonl")
    manifest = synthesize(tmp_path / "snips.jsonl", tmp_path / "spoken", voices=["nanotts:en-US"])
    assert [(line["text"], line["sentence"]) for line in read_lines(manifest)] == [("play jazz", "train/0")]


def test_no_held_out_sentence_is_chosen_for_train_in_another_corpus(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    jazz = [{"label": "music_genre", "value": "jazz"}]
    texts = {
        "snips": [{"text": "what time is it", "intent": "PlayMusic", "slots": [], "split": "train"}] * 2,
        "nlu_eval": [{"text": "play jazz", "intent": "play_music", "slots": jazz, "split": "train"}] * 9,
        "multi30k": [{"en": "A dog.", "de": "Ein Hund.", "fr": "Un chien.", "split": "train"}],
        "clinc150": [{"text": "What time is it?", "intent": "time", "domain": "utility", "split": "test"}],
    }
    texts["snips"].append({"text": "play it", "intent": "PlayMusic", "slots": [], "split": "train"})
    for name, rows in texts.items():
        (tmp_path / "texts" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    chosen = choose_sentences(7_750, written=True)
    assert [row["text"] for row in chosen["snips"]] == ["play it"] and len(chosen["clinc150"]) == 1
    splits = defaultdict(set)
    for rows in chosen.values():
        for row in rows:
            splits[plain_text(row["text"])].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_other_training_sentences_are_those_that_no_corpus_has(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    rows = {
        "snips": [{"text": f"play song {i}", "intent": "PlayMusic", "slots": [], "split": "train"} for i in range(900)]
        + [{"text": "play song 7 now", "intent": "PlayMusic", "slots": [], "split": "validation"}],
        "nlu_eval": [
            {"text": text, "intent": "a", "slots": [{"label": "time", "value": "now"}], "split": split}
            for text, split in (("wake me", "train"), ("Play song 899!", "train"), ("stop", "test"))
        ],
        "multi30k": [{"en": "A dog.", "de": "Ein Hund.", "fr": "Un chien.", "split": "val"}],
        "clinc150": [{"text": "my balance", "intent": "balance", "domain": "banking", "split": "train"}],
    }
    for name, lines in rows.items():
        (tmp_path / "texts" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    chosen = choose_sentences(7_750, written=True)
    others = other_sentences(chosen)
    kept = {plain_text(row["text"]) for corpus in chosen.values() for row in corpus}
    words = [plain_text(row["text"]) for row in others]
    everything = {
        plain_text(row["text"]) for name in ("snips", "nlu_eval") for row in rows[name] if row["split"] == "train"
    }
    assert len(words) == len(set(words)) and set(words) == everything - kept and len(words) >= 90
    assert {row["split"] for row in others} == {"train"} and all(
        set(row) == {"text", "split", "sentence"} for row in others
    )
    assert others == other_sentences(chosen) != other_sentences(chosen, seed=1)
    with pytest.raises(ValueError, match="--transcripts is about sentences of texts"):
        make_mini(tmp_path / "empty", transcripts=True)

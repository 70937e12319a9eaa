"""Suites: what their files may say, and which samples their rows get."""

import json

import pytest
import soundfile
from tiny_models import noise

from speechverse import Task, TaskBank
from speechverse.evaluation.suite import Suite, SuiteRow, load_rows, load_suite, shipped_suites, suite_of_config
from speechverse.training.arguments import TASKS_FOLDER, all_tasks, parse_run_config


BANK = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["write it", "spell it"], held_out_prompts=["go"], metric="wer"),
        Task("er", "emotion-recognition", "Emotion", ["{labels}?"], {"happy": "glad", "sad": "down"}),
    ]
)


@pytest.fixture
def suite_of(tmp_path, moods):
    """Writes a suite of rows about the six clips, and reads it."""

    def suite_of(*rows, head="title: Moods\n"):
        file = tmp_path / "moods.yaml"
        file.write_text(f"{head}rows:\n" + "".join(f"  - {row}\n" for row in rows))
        return load_suite(file)

    return suite_of


def row(id="one", tasks="[er]", more="", data=""):
    return f"{{id: {id}, data: {{corpus: $CALLS/calls.yaml, split: test, tasks: {tasks}{data}}}{more}}}"


def test_rows_know_what_they_ask_and_how_it_is_scored(suite_of):
    suite = suite_of(
        row("label"),
        row(
            "described", more=", describe: true, decoding: scored, metric: [accuracy, uar], paper: {uar: {Ours: 51.7}}"
        ),
        row("words", "[asr]", ", prompt: 1, name: Words"),
        row("held_out", "[asr]", data=", prompts: held_out, limit: 2"),
        row("both", "[]", ", describe: true", ", joint: [[asr, er]]"),
        row("two", "[]", ", metric: {er: uar}", ", joint: [[asr, er]]"),
        row("open", "[asr]", ", instruction: 'Who is it?', passes: {contains: {phrase: it}}"),
    )
    assert (suite.name, suite.title, suite.rows[1].paper_figures(None, "uar")) == ("moods", "Moods", {"Ours": 51.7})
    rows = {loaded.row.id: loaded for loaded in load_rows(suite, BANK)}
    words = {name: loaded.instruction(loaded.samples[0]) for name, loaded in rows.items()}
    assert words["label"] == "happy or sad?" and words["described"] == "happy (glad); or sad (down)?"
    assert (words["words"], words["held_out"], words["open"]) == ("spell it", "go", "Who is it?")
    assert words["both"] == BANK.joint(["asr", "er"]).instruction(["write it", "happy (glad); or sad (down)?"])
    assert {name: len(loaded.samples) for name, loaded in rows.items()} == dict.fromkeys(rows, 6) | {"held_out": 2}
    assert {name: loaded.scored for name, loaded in rows.items()} == {
        "label": [(None, "accuracy")],
        "described": [(None, "accuracy"), (None, "uar")],
        "words": [(None, "wer")],
        "held_out": [(None, "wer")],
        "both": [("asr", "wer"), ("er", "accuracy")],
        "two": [("er", "uar")],
        "open": [(None, "pass_rate")],
    }


def test_limit_takes_samples_from_all_over_a_row(suite_of):
    (loaded,) = load_rows(suite_of(row()), BANK, limit=4)
    assert [sample.key for sample in loaded.samples] == [f"test/{index}" for index in (0, 1, 3, 4)]


def test_configuration_is_a_suite_of_its_views(moods, tmp_path):
    text = moods.read_text()
    joint = "{corpus: $CALLS/calls.yaml, split: test, tasks: [asr], joint: [[asr, er]], prompts: held_out}"
    moods.write_text(
        text.split("eval_data")[0] + f"test_data: [{joint}, {{corpus: $CALLS/calls.yaml, split: test}}]\n"
    )
    suite = suite_of_config(parse_run_config([str(moods)]), "moods")
    assert [row.id for row in suite.rows] == ["calls/asr", "calls/asr+er", "calls/asr 2", "calls/er"]
    assert all(row.data["prompts"] == "held_out" for row in suite.rows[:2])
    assert [len(loaded.samples) for loaded in load_rows(suite, all_tasks(TaskBank()))] == [6] * 4
    moods.write_text(text.split("eval_data")[0])
    with pytest.raises(ValueError, match="moods has neither test_data nor eval_data"):
        suite_of_config(parse_run_config([str(moods)]), "moods")


def test_manifest_of_several_tasks_is_a_row_for_each(tmp_path):
    for index in range(3):
        soundfile.write(tmp_path / f"{index}.wav", noise(0.4, index), 16_000)
    lines = [{"audio": "0.wav", "task": "er", "target": "sad"}, {"audio": "1.wav", "task": "asr", "target": "stop it"}]
    lines += [{"audio": "2.wav", "task": "er", "target": "cross", "speaker": 7, "transcript": "stop it", "snr": 5}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "config.yaml"
    source = f"[{{manifest: {tmp_path / 'm.jsonl'}}}]"
    config.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {source}\ntest_data: {source}\n")
    suite = suite_of_config(parse_run_config([str(config)]), "mine")
    emotions, words = load_rows(suite, BANK)
    assert (emotions.row.id, words.row.id) == ("m/er", "m/asr")
    assert [sample.target for sample in emotions.samples] == ["sad", "cross"] and len(words.samples) == 1
    facts = [(sample.speaker, sample.transcript, sample.snr, sample.duration) for sample in emotions.samples]
    assert facts == [(None, None, None, 0.4), ("7", "stop it", 5, 0.4)]


def test_each_view_of_a_row_has_its_own_samples_left_out(suite_of, moods):
    lines = [json.loads(line) for line in (moods.parent / "rows.jsonl").read_text().splitlines()]
    lines[0]["mood"], lines[1]["text"], lines[2]["audio"] = "", "", "away.wav"
    (moods.parent / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words, emotions = load_rows(suite_of(row(tasks="[asr, er]")), BANK)
    assert (words.row.id, emotions.row.id) == ("one/asr", "one/er")
    for loaded, column in ((words, "text"), (emotions, "mood")):
        assert len(loaded.samples) == 4
        assert f"no answer: column {column} is empty" in [left["reason"] for left in loaded.skipped]
        assert len(loaded.skipped) == 2
    with pytest.raises(ValueError, match="two rows are called one/er"):
        load_rows(suite_of(row(tasks="[asr, er]"), row("one/er")), BANK)


def test_a_view_of_which_nothing_is_left_is_told(tmp_path):
    soundfile.write(tmp_path / "0.wav", noise(0.4, 0), 16_000)
    lines = [
        {"audio": "0.wav", "task": "er", "target": "sad"},
        {"audio": "away.wav", "task": "asr", "target": "stop it"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = Suite("mine", "Mine", [SuiteRow("m", {"manifest": str(tmp_path / "m.jsonl")})])
    with pytest.raises(ValueError, match="row m/asr: None of the 1 samples can be used; the first"):
        load_rows(suite, BANK)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([row(more=", metrics: wer")], r"moods.yaml, rows\[0\]: unknown key metrics"),
        ([row(), row()], r"rows\[1\]: key id is 'one', as in a row before it"),
        ([row(more=", decoding: beam")], "key decoding is 'beam'; it is one of free, constrained, scored"),
        ([row(more=", metric: rouge")], "no metric 'rouge'; there are accuracy, bleu"),
        ([row(more=", metric: wer, language: English")], r"rows\[0\]: The language is 'English'"),
        ([row(more=", prompt: -1")], "key prompt is -1"),
        ([row(more=", passes: {label: {}}")], "key passes is for a row with an instruction of its own"),
        ([row(more=", instruction: 'What?', passes: {rhymes: {}}")], "criterion 'rhymes'; known are"),
        ([row(tasks="[song]")], r"rows\[0\], data: corpus calls serves no task 'song'; it serves asr, er"),
        ([row(data=", rows: 3")], r"rows\[0\], data: unknown key rows"),
        ([row().replace("calls.yaml", "none.yaml")], "none.yaml"),
        (["[1]"], r"rows\[0\] is list, not a mapping"),
    ],
)
def test_mistakes_in_a_file_are_named(rows, message, suite_of):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        suite_of(*rows)


@pytest.mark.parametrize(
    "entry, message",
    [
        (row(more=", prompt: 1"), "row one: key prompt is 1; er has 1 wordings"),
        (row("one", "[]", ", metric: wer", ", joint: [[asr, er]]"), "metric is a mapping of the tasks asr, er"),
        (row("one", "[]", ", metric: {st: wer}", ", joint: [[asr, er]]"), "metrics, not of st"),
        (row(more=", metric: [uar, accuracy], paper: {wer: {Ours: 2}}"), "paper has figures of wer; .* accuracy, uar"),
        (row("one", "[]", ", paper: {st: {Ours: 2}}", ", joint: [[asr, er]]"), "paper has figures of st; .* asr, er"),
        (row(more=", paper: {uar: {Ours: 2}}"), "key paper holds .*; it is a mapping of systems to their figures"),
        (row(more=", metric: {er: uar}"), "is a mapping, which is for tasks that are asked together"),
        (
            row(more=", instruction: 'What?', passes: {contains: {slot: city}}"),
            "no sample can be judged; the first: conta",
        ),
    ],
)
def test_mistakes_that_samples_show_are_named(entry, message, suite_of):
    with pytest.raises(ValueError, match=message):
        load_rows(suite_of(entry), BANK)


def test_other_files_are_refused(tmp_path):
    for name in ("table1", tmp_path / "mini_table2.yaml"):
        with pytest.raises(FileNotFoundError, match=f"There is no suite {name}; there are .*table2_slu"):
            load_suite(name)
    (tmp_path / "a.yaml").write_text("rows: [1")
    with pytest.raises(ValueError, match="a.yaml is not YAML"):
        load_suite(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="a suite is a mapping with title and rows"):
        load_suite(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("title: None\nrows: []\n")
    with pytest.raises(ValueError, match="a list of rows"):
        load_suite(tmp_path / "a.yaml")


def test_shipped_suites_are_found_by_name():
    assert {"table2_slu", "mini_table2"} <= set(shipped_suites())
    assert load_suite("mini_table2").rows and load_suite("mini_table2.yaml").name == "mini_table2"


def test_missing_recordings_are_said_before_any_model_is_needed(suite_of, moods):
    (moods.parent / "rows.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="Ask us"):
        load_rows(suite_of(row()), all_tasks(TaskBank(), TaskBank.from_yaml(TASKS_FOLDER)))


def test_row_is_made_by_hand_too():
    assert SuiteRow("one", {"manifest": "m.jsonl"}).source.manifest == "m.jsonl"

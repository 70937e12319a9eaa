"""The demo's parts, on tiny models: its sentences, its recordings, its questions, its new task."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import yaml
from tiny_models import noise, save_bases, spelling_tokenizer, tiny_speller
from transformers import AutoConfig, AutoModelForSeq2SeqLM, pipeline

from speechverse import SpeechVerseForConditionalGeneration, TaskBank
from speechverse.training import demo, demo_tour
from speechverse.training.arguments import TASKS_FOLDER, parse_run_config
from speechverse.training.data.overlaps import plain_text
from speechverse.training.data.vacuum_commands import vacuum_sentences


VOICES = ("nanotts:en-GB", "hibari:heart")


@pytest.fixture(scope="module")
def sentences():
    return vacuum_sentences(VOICES)


@pytest.fixture(scope="module")
def ask():
    """A pipeline that knows all tasks and nothing else."""
    model, processor = tiny_speller("whisper", tasks=TaskBank.from_yaml(TASKS_FOLDER, demo.TASK))
    model.generation_config.update(max_new_tokens=4)
    return pipeline("speech-instruction", model=model, processor=processor)


def test_commands_are_of_the_task_and_as_many_of_each_label(sentences):
    (task,) = TaskBank.from_yaml(demo.TASK)
    counts = Counter((row["split"], row["target"]) for row in sentences)
    assert counts == {(split, label): n for split, n in (("train", 24), ("test", 4)) for label in task.labels}
    assert {row["task"] for row in sentences} == {task.id} and 100 <= counts.total() <= 200


def test_commands_of_the_test_are_unheard_and_share_out_the_voices(sentences):
    train, test = ([row for row in sentences if row["split"] == split] for split in ("train", "test"))
    assert not {plain_text(row["text"]) for row in train} & {plain_text(row["text"]) for row in test}
    assert len({plain_text(row["text"]) for row in test}) == len(test)
    for rows in (train, test):
        assert Counter(row["voice"] for row in rows) == dict.fromkeys(VOICES, len(rows) / 2)


def test_configuration_goes_on_from_the_published_checkpoint(monkeypatch, tmp_path):
    monkeypatch.chdir(demo.HERE.parent)
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    config = parse_run_config([str(demo.CONFIG)])
    published = json.loads((demo.PUBLISHED / "config.json").read_text())
    assert Path(config.model.adapter).resolve() == demo.PUBLISHED
    assert (config.model.lora_rank, config.model.lora_target_modules) == (
        published["lora_config"]["r"],
        published["lora_config"]["target_modules"],
    )
    assert "vacuum" in config.tasks and Path(config.namespace.output_dir) == Path("runs/demo/checkpoint")
    assert config.training_arguments().feature_cache_folder == tmp_path / "features"


def test_published_checkpoint_knows_every_task_of_the_tour():
    tasks = TaskBank.from_json(demo.PUBLISHED / "tasks.json")
    assert len(demo_tour.QUESTIONS) >= 12
    asked = [demo_tour.in_words(question.call, tasks) for question in demo_tour.QUESTIONS]
    assert len({(one.recording, words) for one, words in zip(demo_tour.QUESTIONS, asked, strict=True)}) == len(asked)
    assert {one.recording for one in demo_tour.QUESTIONS} == {*demo_tour.SPOKEN, "noise"}
    for question in demo_tour.QUESTIONS:
        task = question.call.get("task")
        if isinstance(task, str) and tasks[task].answer_type == "label":
            assert question.truth in question.call.get("labels", tasks[task].labels)
    assert {"asr", "st", "ic", "sf", "kwe", "kws", "er", "asc", "ac", "sc", "sns"} <= {
        question.call["task"] for question in demo_tour.QUESTIONS if isinstance(question.call.get("task"), str)
    }


def test_recordings_are_spoken(tmp_path):
    pytest.importorskip("py_nanotts")
    pytest.importorskip("hibari")
    files = demo_tour.record(tmp_path / "recordings")
    seconds = {}
    for name, file in files.items():
        wave, rate = soundfile.read(file)
        assert file.name == f"{name}.wav" and rate == 16_000 and wave.ndim == 1 and abs(wave).max() > 0.05
        seconds[name] = len(wave) / rate
    assert seconds["noise"] == 3 and seconds["dialogue"] > seconds["dog"]


@pytest.mark.parametrize(
    "answer, truth, same",
    [
        ("Will it rain?", "will it rain", True),
        ("Will it rain?", "will it snow", False),
        (["snow", "dog"], ["dog", "Snow"], True),
        (["snow"], ["dog", "snow"], False),
        ([{"label": "date", "value": "Monday"}], [{"label": "date", "value": "monday"}], True),
        ({"asr": "Stop.", "ic": "stop"}, {"asr": "stop", "ic": "stop"}, True),
        (None, "yes", False),
    ],
)
def test_answers_agree_but_for_case_punctuation_and_order(answer, truth, same):
    assert demo_tour.agree(answer, truth) is same


def test_answers_are_shown_in_a_line():
    assert demo_tour.as_text({"asr": "Stop.", "sf": [{"label": "date", "value": "Monday"}]}) == (
        "asr: Stop.; sf: date = Monday"
    )
    assert (demo_tour.as_text([]), demo_tour.as_text(None)) == ("none", "None")


def test_tour_shows_every_question_with_truth_and_answer(ask, monkeypatch, tmp_path, capsys):
    def record(folder):
        files = {name: tmp_path / f"{name}.wav" for name in (*demo_tour.SPOKEN, "noise")}
        for seed, file in enumerate(files.values()):
            soundfile.write(file, noise(0.5, seed), 16_000)
        return files

    monkeypatch.setattr(demo_tour, "record", record)
    right = demo.take_tour(ask, tmp_path)
    shown = capsys.readouterr().out
    assert shown.count("\n  [") + shown.count("\n= [") == len(demo_tour.QUESTIONS)
    assert shown.count("\n= [") == right and f"= marks {right} of {len(demo_tour.QUESTIONS)} answers" in shown
    assert "[dog] Translate what is said into French.       Un chien court dans la neige." in shown


@pytest.fixture
def spoken(sentences, tmp_path):
    """The manifest of the commands, of which noise is heard."""
    folder = tmp_path / "vacuum"
    folder.mkdir()
    chosen = [row for row in sentences if row["voice"] == VOICES[0]][::3]
    for index in range(len(chosen)):
        soundfile.write(folder / f"{index}.wav", noise(0.4, index), 16_000)
    lines = [json.dumps(row | {"audio": f"{index}.wav"}) for index, row in enumerate(chosen)]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "manifest.jsonl"


def test_new_task_is_learned_from_an_adapter_by_the_shipped_configuration(spoken, train_here, monkeypatch, tmp_path):
    audio_base, text_base = save_bases(tmp_path / "bases", "whisper")
    tokenizer = spelling_tokenizer("t5")
    tokenizer.save_pretrained(text_base)
    config = AutoConfig.from_pretrained(text_base)
    config.vocab_size = len(tokenizer) + 8  # as real ones, T5 has scores for more ids than it has tokens
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(text_base)
    shipped = yaml.safe_load(demo.CONFIG.read_text())
    model = SpeechVerseForConditionalGeneration.from_foundations(
        audio_base, text_base, lora_rank=32, lora_target_modules=shipped["lora_target_modules"]
    )
    model.save_pretrained(tmp_path / "adapter")

    monkeypatch.chdir(demo.HERE.parent)
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    bases = ["--audio_base", audio_base, "--text_base", text_base, "--adapter", tmp_path / "adapter"]
    steps = ["--max_steps", 2, "--per_device_train_batch_size", 4, "--warmup_steps", 0]
    train_here(tmp_path / "checkpoint", *bases, *steps, config=demo.CONFIG)

    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
    answered = demo.answer_commands(demo.load(tmp_path / "checkpoint"), spoken)
    (task,) = TaskBank.from_yaml(demo.TASK)
    assert {line["split"] for line, _ in answered} == {"test"}
    assert all(answer in task.labels for _, answer in answered) and 0 <= demo.accuracy(answered) <= 1


@pytest.fixture
def run_demo(monkeypatch, tmp_path):
    """Runs the command with all that takes long put aside; the answers before and after training are given."""

    def run(before, after):
        answers = iter([before, after])
        lines = [
            {"audio": "audio/0.flac", "text": "Wait.", "target": "pause"},
            {"audio": "audio/1.flac", "text": "Clean.", "target": "clean"},
        ]
        for name in ("provide_foundations", "load", "train"):
            monkeypatch.setattr(demo, name, lambda folder: None)
        monkeypatch.setattr(demo, "take_tour", lambda ask, folder: 0)
        monkeypatch.setattr(demo, "speak_commands", lambda folder: folder / "manifest.jsonl")
        monkeypatch.setattr(
            demo, "answer_commands", lambda ask, manifest: list(zip(lines, next(answers), strict=True))
        )
        for name in ("SPEECHVERSE_FOUNDATIONS", "SPEECHVERSE_DATA"):
            monkeypatch.setenv(name, "")  # so that what the demo sets is taken back
        monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "out"), "--foundations", "bases"])
        demo.main()

    return run


def test_demo_tells_what_training_brought_and_how_to_ask(run_demo, tmp_path, capsys):
    run_demo(["clean", "clean"], ["pause", "clean"])
    shown = capsys.readouterr().out
    assert "2 unheard sentences: 50% right before, 100% after." in shown
    assert "export SPEECHVERSE_FOUNDATIONS=bases" in shown
    assert f'ask("{tmp_path}/out/vacuum/audio/0.flac", task="vacuum")' in shown


def test_demo_fails_where_training_brought_too_little(run_demo):
    with pytest.raises(SystemExit, match="fewer than 70% of the unheard sentences were answered right"):
        run_demo(["clean", "clean"], ["clean", "clean"])


def test_a_script_that_fails_ends_the_demo_without_a_traceback(capfd):
    with pytest.raises(SystemExit) as end:
        demo.run("foundations.py", "--out", "nowhere", "no-such-foundation")
    assert end.value.code not in (0, None) and "no-such-foundation" in capfd.readouterr().err


def test_training_is_the_command_that_any_user_runs(monkeypatch):
    called = []
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **options: called.append((command, options)))
    demo.train(Path("out"))
    ((command, options),) = called
    assert command[1:3] == ["-m", "accelerate.commands.launch"] and options["check"]
    assert command[-4:] == [str(demo.HERE / "train.py"), str(demo.CONFIG), "--output_dir", "out"]

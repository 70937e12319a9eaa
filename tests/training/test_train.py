"""Training from a configuration to a checkpoint that answers: launched as users launch it, resumed, on two ranks."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import noise
from training_runs import ACCELERATE_LAUNCH, CONFIG, SCRIPT, TORCHRUN, assert_same_adapter, logged, run_process
from transformers import pipeline

import speechverse  # noqa: F401  registers the pipeline
from speechverse.model_cards.card import is_unedited
from speechverse.model_cards.release import write_release
from speechverse.modeling_speechverse.audio_encoders import Wav2Vec2Family
from speechverse.training.arguments import parse_run_config
from speechverse.training.train import build_trainer, main, train


LAUNCH = [*ACCELERATE_LAUNCH, "--cpu", "--num_processes", "1"]


@pytest.fixture(scope="module")
def finished(environment, config_file, tmp_path_factory):
    """The folder of a run that `accelerate launch` made in a process of its own."""
    folder = tmp_path_factory.mktemp("finished")
    run_process([*LAUNCH, SCRIPT, config_file, "--output_dir", folder], environment)
    return folder


def test_launched_run_leaves_a_model_that_answers(finished, environment, monkeypatch):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", environment["SPEECHVERSE_FOUNDATIONS"])
    ask = pipeline("speech-instruction", model=str(finished))
    answer = ask({"array": noise(0.6), "sampling_rate": 16_000}, "which colour ?", max_new_tokens=5)
    assert answer.keys() - {"truncated"} == {"text", "answer"} and isinstance(answer["text"], str)
    recording = {"audio": {"array": noise(0.6), "sampling_rate": 16_000}, "task": "asr"}
    assert isinstance(ask(recording, max_new_tokens=5)["answer"], str)  # the tasks travelled along


def test_run_leaves_its_record_and_its_pictures(finished):
    record = json.loads((finished / "run.json").read_text())
    config = record["config"]
    assert (config["audio_base"], config["learning_rate"], record["steps"]) == ("tiny-wavlm", 0.01, 6)
    assert config["train_data"][0]["manifest"] == "$CORPUS/manifest.jsonl" and config["train_data"][0]["task"] == "asr"
    assert record["trainable_parameters"] == sum(t.numel() for t in load_file(finished / "model.safetensors").values())
    assert len(logged(finished, "loss")) == 6 and len(logged(finished, "eval_loss")) == 2
    assert record["data"]["train"]["kept"] == 12 and record["data"]["eval"]["kept"] == 3
    assert record["versions"]["torch"] == torch.__version__ and record["hardware"]["world_size"] == 1
    assert record["train_runtime"] > 0
    for name in ("loss.png", "training.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_every_figure_of_the_log(finished):
    (events,) = finished.glob("**/events.out.tfevents.*")
    reader = EventAccumulator(str(events.parent))
    reader.Reload()
    for entry in json.loads((finished / "run.json").read_text())["log"]:
        for key, value in entry.items():
            if key != "step":
                name = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
                written = {event.step: event.value for event in reader.Scalars(name)}
                assert written[entry["step"]] == pytest.approx(value), name


def test_run_leaves_a_draft_of_its_card_and_can_be_published(finished, environment, tmp_path):
    draft = (finished / "README.md").read_text(encoding="utf-8")
    assert is_unedited(finished / "README.md")
    assert "This card is a draft" in draft and "6 steps" in draft and "](loss.png)" in draft
    assert "| manifest | asr | 6 |" in draft and "| manifest | no task | 6 |" in draft
    write_release(finished, tmp_path, repo_id="org/colours", license="mit")
    released = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {"README.md", "run.json", "loss.png", "training.png"} <= released.keys()
    assert "data_report.json" not in released and b'model="org/colours"' in released["README.md"]
    private = [str(finished), environment["CORPUS"], environment["SPEECHVERSE_FOUNDATIONS"]]
    for name, content in [*released.items(), ("the draft", draft.encode())]:
        assert not [word for word in private if word.encode() in content], name


def test_stages_are_recorded(environment, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    align = "{name: align, tasks: [asr], trains: [projector], steps: 2}"
    (tmp_path / "run.yaml").write_text(CONFIG + f"curriculum: [{align}, {{name: everything, steps: 4}}]\n")
    options = ["--output_dir", str(tmp_path / "run"), "--report_to", "none", "--eval_strategy", "no"]
    config = parse_run_config([str(tmp_path / "run.yaml"), *options])
    train(build_trainer(config), config)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(stage["name"], stage["first_step"]) for stage in record["stages"]] == [("align", 0), ("everything", 2)]
    assert [stage["name"] for stage in record["config"]["curriculum"]] == ["align", "everything"]
    assert record["config"]["mixture"]["temperature"] == 1
    samples = {task: sums["samples"] for task, sums in record["trained_on"].items()}
    assert sum(samples.values()) == 6 * 4 and samples["asr"] >= 2 * 4
    assert "| align | projector | asr | 0 | 2 | length |" in (tmp_path / "run" / "README.md").read_text()


def test_run_leaves_no_pickle_but_to_resume(finished):
    assert not list(finished.glob("**/training_args.bin"))
    pickles = {file.relative_to(finished).parts[0] for file in finished.glob("**/*.pt*")}
    assert pickles == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}


@pytest.mark.parametrize("step", [2, 4])  # both within an epoch
def test_resumed_run_ends_where_the_uninterrupted_one_did(step, finished, train_here, tmp_path):
    shutil.copytree(finished / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    train_here(tmp_path, "--resume_from_checkpoint", "true")
    assert logged(tmp_path, "loss") == pytest.approx(logged(finished, "loss"), abs=1e-5)
    assert_same_adapter(tmp_path, finished, 1e-5)


def test_resuming_without_a_checkpoint_starts_anew(finished, train_here, tmp_path):
    train_here(tmp_path / "new", "--resume_from_checkpoint", "true", "--max_steps", "1")
    assert logged(tmp_path / "new", "loss") == pytest.approx(logged(finished, "loss")[:1], abs=1e-5)


@pytest.mark.slow
def test_cache_that_two_ranks_filled_trains_the_same_model(
    finished, environment, config_file, train_here, tmp_path, monkeypatch
):
    folders = {"--feature_cache_dir": tmp_path / "features", "--output_dir": tmp_path / "run"}
    options = [word for option in folders.items() for word in option]
    run_process([*TORCHRUN, SCRIPT.with_name("cache_features.py"), config_file, *options], environment)
    indices = list(tmp_path.glob("features/*/*/*.index"))
    keys = [line.split()[0] for index in indices for line in index.read_text().splitlines()]
    assert len(indices) == 2 and len(keys) == len(set(keys)) == 7  # the recordings that the configuration names
    monkeypatch.setattr(Wav2Vec2Family, "run", lambda *args: pytest.fail("the encoder runs"))
    train_here(tmp_path / "run", "--cache_features", "true", "--feature_cache_dir", str(tmp_path / "features"))
    assert logged(tmp_path / "run", "loss") == pytest.approx(logged(finished, "loss"), rel=2e-3)


def test_two_ranks_make_the_steps_of_one_with_the_same_global_batch(environment, config_file, train_here, tmp_path):
    # SGD without clipping, since AdamW would hide a loss of the wrong scale; two epochs, to draw wordings in both.
    plain = ["--optim", "sgd", "--max_grad_norm", "0", "--learning_rate", "0.1", "--report_to", "none"]
    one = train_here(tmp_path / "one", *plain)
    two = tmp_path / "two"
    halved = ["--per_device_train_batch_size", "2"]
    run_process([*TORCHRUN, SCRIPT, config_file, "--output_dir", two, *plain, *halved], environment)
    assert logged(two, "loss") == pytest.approx(logged(one, "loss"), abs=1e-4)
    assert logged(two, "grad_norm") == pytest.approx(logged(one, "grad_norm"), rel=1e-3)
    assert logged(two, "eval_loss") == pytest.approx(logged(one, "eval_loss"), abs=1e-4)
    assert_same_adapter(two, one, 1e-4)
    start = load_file(one / "checkpoint-2" / "model.safetensors")
    moved = max((t - start[name]).abs().max() for name, t in load_file(one / "model.safetensors").items())
    assert moved > 1e-3  # so that 1e-4 means something


OWN_CORPUS = """
id: shades
title: Colours in noise
licence: CC0-1.0
permissive: true
citation: nobody
access: Ask whoever wrote this test.
sources:
  - {kind: jsonl, root: $CORPUS, files: manifest.jsonl, splits: {train: {split: train}}, columns:
      {audio: audio, text: answer, split: split, known: {value: "yes"}}}
tasks:
  asr: {answer: text}
  urgency: {answer: known}
"""


@pytest.fixture
def own_corpus(environment, config_file, tmp_path, monkeypatch):
    """Writes a configuration that takes something of an own corpus with an own task; returns the configuration."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "urgency.yaml").write_text(
        'id: urgency\nname: n\ntag: U\nprompts: ["is it ? {labels}"]\nlabels: {"yes": "", "no": ""}\n'
    )

    def own_corpus(entry, facts=OWN_CORPUS):
        (tmp_path / "shades.yaml").write_text(facts)
        start, end = CONFIG.index("train_data:"), CONFIG.index("max_steps:")
        file = tmp_path / "own.yaml"
        data = f"train_data: [{{corpus: {tmp_path / 'shades.yaml'}, split: train, {entry}}}]\n"
        file.write_text(f"{CONFIG[:start]}{data}task_files: [{tmp_path / 'urgency.yaml'}]\n{CONFIG[end:]}")
        return file

    return own_corpus


def test_own_task_and_joint_answers_are_trained(own_corpus, tmp_path):
    options = [
        "--output_dir",
        str(tmp_path / "run"),
        "--report_to",
        "none",
        "--eval_strategy",
        "no",
        "--max_steps",
        "1",
    ]
    config = parse_run_config([str(own_corpus("tasks: [], joint: [[urgency, asr]]")), *options])
    trainer = build_trainer(config)
    assert {task.id for task in trainer.processing_class.tasks} == {"urgency", "asr"}
    assert len(trainer.train_dataset) == 6
    train(trainer, config)
    assert {task["id"] for task in json.loads((tmp_path / "run" / "tasks.json").read_text())} == {"urgency", "asr"}


def test_only_some_tasks_are_learned(own_corpus, tmp_path):
    file = own_corpus("joint: [[urgency, asr]]")
    validation = f"eval_data: [{{corpus: {tmp_path / 'shades.yaml'}, split: train}}]\n"
    elsewhere = "test_data: [{corpus: ravdess, split: test}]\n"  # it is not there, and need not be
    curriculum = "curriculum: [{name: all, steps: 5, weights: {asr: 2.0}}]\n"
    file.write_text(file.read_text() + validation + elsewhere + curriculum)

    def learn(name, *options):
        config = parse_run_config([str(file), "--output_dir", str(tmp_path / name), *options])
        return build_trainer(config), config

    everything, config = learn("everything")
    assert len(everything.train_dataset) == 18 and everything.curriculum.max_steps == 5
    train(everything, config)
    trainer, config = learn("one", "--only_tasks", "urgency", "--max_steps", "3")
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        assert [dataset.sample(index).tasks for index in range(len(dataset))] == 6 * [("urgency",)]
    assert trainer.curriculum.max_steps == 3 and config.test_data == []
    assert [source["tasks"] for source in config.as_dict()["train_data"]] == [["urgency"]]  # and so in its card
    assert {task.id for task in trainer.processing_class.tasks} == {"urgency"}
    after, _ = learn("after", "--only_tasks", "urgency", "--adapter", str(tmp_path / "everything"))
    assert {task.id for task in after.processing_class.tasks} == {"urgency"}
    reports = [json.loads((tmp_path / name / "data_report.json").read_text()) for name in ("everything", "after")]
    assert reports[0]["inherited"] == {} and reports[1]["inherited"] == reports[0]["licences"] != {}
    assert len(learn("both", "--only_tasks", "urgency", "asr")[0].train_dataset) == 18


def test_tasks_that_the_data_do_not_serve_are_named(own_corpus, manifest, tmp_path):
    file = own_corpus("tasks: [asr]")

    def parse(*tasks):
        return parse_run_config([str(file), "--output_dir", str(tmp_path / "run"), "--only_tasks", *tasks])

    with pytest.raises(ValueError, match="only_tasks: train_data serve nothing of er"):
        parse("er")
    with pytest.raises(ValueError, match="only_tasks: train_data have nothing of er"):
        build_trainer(parse("asr", "er"))
    file.write_text(file.read_text() + "eval_strategy: steps\n")
    with pytest.raises(ValueError, match="only_tasks: eval_data have nothing of asr.*--eval_strategy no"):
        build_trainer(parse("asr"))


def test_package_that_is_not_there_ends_with_one_sentence(own_corpus, monkeypatch):
    facts = OWN_CORPUS.replace("asr: {answer: text}", "kwe: {answer: keywords}")
    file = own_corpus("tasks: [kwe]", facts + "derive: [{keywords: {column: text}}]\n")
    monkeypatch.setitem(sys.modules, "yake", None)
    monkeypatch.setattr(sys, "argv", ["train.py", str(file)])
    with pytest.raises(SystemExit, match="keywords are found by YAKE: pip install"):
        main()


def test_bad_configuration_ends_with_one_sentence(tmp_path, monkeypatch):
    bad = tmp_path / "bad.yaml"
    bad.write_text(CONFIG.replace("lora_rank", "lora_rnak"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["train.py", str(bad)])
    with pytest.raises(SystemExit) as ended:  # of a text: Python shows it without a traceback, and exits with 1
        main()
    assert ended.value.code == f"{bad}: unknown key 'lora_rnak'; did you mean 'lora_rank'?"

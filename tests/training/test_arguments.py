"""The run's configuration: a YAML file, and the command line before it."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from speechverse.training.arguments import UNSUPPORTED, SpeechVerseTrainingArguments, parse_run_config
from speechverse.training.data.manifest import ManifestSource, expand_variables


SHIPPED = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))
NEEDED = """
audio_base: whisper-base
text_base: flan-t5-small
train_data:
  - {manifest: m.jsonl, where: {split: train}, target: $text}
"""


@pytest.fixture
def parse(tmp_path):
    """Parses a configuration given as text, with command-line arguments."""

    def parse(text, *arguments):
        file = tmp_path / "run.yaml"
        file.write_text(text, encoding="utf-8")
        return parse_run_config([str(file), "--output_dir", str(tmp_path / "run"), *arguments])

    return parse


def test_yaml_fills_model_data_and_training(parse):
    config = parse(NEEDED + "lora_rank: 4\nmax_steps: 7\nlora_target_modules: [q, k]\nfreeze_audio_tower: false")
    assert (config.model.audio_base, config.model.text_base, config.model.lora_rank) == (
        "whisper-base",
        "flan-t5-small",
        4,
    )
    assert config.model.lora_target_modules == ["q", "k"] and config.model.freeze_audio_tower is False
    [source] = config.train_data
    assert (source.manifest, source.where, source.target) == ("m.jsonl", {"split": "train"}, "$text")
    assert config.eval_data == []
    assert config.training_arguments().max_steps == 7


def test_command_line_goes_before_yaml(parse):
    config = parse(NEEDED + "max_steps: 7\nlora_rank: 4\nseed: 3", "--max_steps", "9", "--text_base", "smollm2")
    assert config.model.text_base == "smollm2" and config.model.lora_rank == 4
    args = config.training_arguments()
    assert (args.max_steps, args.seed) == (9, 3)


def test_defaults_are_speechverses_own(parse):
    args = parse(NEEDED).training_arguments()
    assert (args.learning_rate, args.lora_learning_rate, args.lr_scheduler_type) == (1e-3, None, "cosine")
    assert args.remove_unused_columns is False and args.cache_features is False


def test_features_are_kept_where_the_configuration_says(parse, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", "/home/of/hf")
    assert parse(NEEDED).training_arguments().feature_cache_folder == Path("/home/of/hf/speechverse/features")
    args = parse(NEEDED + "feature_cache_dir: $SCRATCH/features").training_arguments()
    with pytest.raises(ValueError, match="SCRATCH/features: an environment variable in this path is not set"):
        args.feature_cache_folder  # noqa: B018
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert args.feature_cache_folder == Path("/scratch/features")
    assert args.feature_cache_dir == "$SCRATCH/features"  # run.json names no folder of this machine


def test_features_are_computed_in_the_precision_of_training(parse):
    precisions = {"": None, "bf16: true": torch.bfloat16, "fp16: true": torch.float16}
    for line, dtype in precisions.items():
        assert parse(f"{NEEDED}{line}\n").training_arguments().autocast_dtype == dtype


TASK = "id: {0}\nname: {0}-detection\ntag: {0}\nprompts: ['Is there {0}?']\n"


def test_tasks_of_ones_own_are_files_in_the_configuration(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS", str(tmp_path / "tasks"))
    (tmp_path / "tasks").mkdir()
    for name in ("urgency", "hurry"):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(TASK.format(name))
    (tmp_path / "er.yaml").write_text(TASK.format("er"))
    tasks = parse(NEEDED + f"task_files: [$TASKS, {tmp_path / 'er.yaml'}]").tasks
    assert tasks["urgency"].prompts == ["Is there urgency?"] and "hurry" in tasks
    assert tasks["er"].prompts == ["Is there er?"]  # goes before the shipped one
    assert "asr" in tasks and "urgency" not in parse(NEEDED).tasks


def test_task_file_that_is_not_there(parse):
    with pytest.raises(FileNotFoundError, match="There is no task file or folder away.yaml"):
        parse(NEEDED + "task_files: [away.yaml]")


@pytest.mark.parametrize("written", ["1e-3", "0.001", "1.0e-3", "'1e-3'"])
def test_numbers_are_numbers_however_yaml_reads_them(written, parse):
    args = parse(NEEDED + f"learning_rate: {written}\nlora_learning_rate: {written}").training_arguments()
    assert args.learning_rate == args.lora_learning_rate == 0.001
    assert isinstance(args.learning_rate, float)


def test_no_is_a_strategy(parse):
    args = parse(NEEDED + "save_strategy: no\neval_strategy: no").training_arguments()
    assert args.save_strategy == args.eval_strategy == "no"


def test_training_arguments_use_the_cpu_where_there_is_nothing_else(parse, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    config = parse(NEEDED)
    assert config.namespace.use_cpu is False
    args = config.training_arguments()
    assert args.use_cpu is True and args.device.type == "cpu"


@pytest.mark.parametrize(
    "text, message",
    [
        (NEEDED + "lora_rnak: 4", r"run\.yaml: unknown key 'lora_rnak'; did you mean 'lora_rank'\?$"),
        (NEEDED + "traindata: []", r"unknown key 'traindata'; did you mean 'train_data'\?"),
        (NEEDED + "config: x", "unknown key 'config'"),
        (NEEDED + "zzzzqqqq: 1", r"unknown key 'zzzzqqqq'\.$"),
        ("audio_base: a\ntext_base: b", "key train_data is missing or empty"),
        ("audio_base: a\ntext_base: b\ntrain_data: []", "key train_data is missing or empty"),
        (NEEDED.replace("audio_base", "lora_rank: 2 #"), "lacks audio_base"),
        (NEEDED.replace("text_base", "lora_rank: 2 #"), "lacks text_base"),
        (NEEDED + "eval_data:\n  - {manifest: d.jsonl, filter: x}", r"eval_data\[0\]: unknown key filter"),
        ("audio_base: a\ntext_base: b\ntrain_data: {manifest: m.jsonl}", r"train_data is dict, not a list"),
        (NEEDED + "task_files: urgency.yaml", "key task_files is 'urgency.yaml'; it is a list"),
        (NEEDED + "task_files: [$NOT_SET/x.yaml]", "an environment variable in this path is not set"),
        (NEEDED + "lora_rank: [1", r"run\.yaml is not YAML: while parsing"),
        ("- a\n- b", "run.yaml holds list; a configuration is a mapping"),
        ("", "key train_data is missing or empty"),
    ],
)
def test_wrong_configuration_is_refused(text, message, parse):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_contradicts_the_plan_of_a_run_is_refused(name, parse):
    with pytest.raises(ValueError, match=f"{name} is not supported"):
        parse(NEEDED + f"{name}: {0.1 if name == 'label_smoothing_factor' else 'true'}").training_arguments()


def test_pushing_a_run_to_the_hub_is_refused(parse):
    message = "push_to_hub is not supported: publish a finished run with speechverse-publish"
    with pytest.raises(ValueError, match=message):
        parse(NEEDED + "push_to_hub: true")
    with pytest.raises(ValueError, match=message):
        parse(NEEDED, "--push_to_hub")
    with pytest.raises(ValueError, match=message):
        SpeechVerseTrainingArguments(push_to_hub=True, report_to="none")


def test_configuration_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml is not there"):
        parse_run_config([str(tmp_path / "nowhere.yaml")])


def test_unknown_command_line_argument_is_refused(parse, capsys):
    with pytest.raises(SystemExit):
        parse(NEEDED, "--lora_rnak", "4")
    assert "--lora_rnak" in capsys.readouterr().err


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_configuration_parses(file, monkeypatch, tmp_path):
    monkeypatch.chdir(file.parents[2])  # where paths of task files begin
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    encoder = ["--audio_base", "encoder-of-25-hz"] if "give --audio_base" in file.read_text() else []
    config = parse_run_config([str(file), "--output_dir", str(tmp_path / "run"), *encoder])
    for source in config.train_data + config.eval_data + config.test_data:
        if not isinstance(source, ManifestSource):
            continue  # a corpus was looked up in parsing
        assert expand_variables(source.manifest).startswith(str(tmp_path))
        for pattern in source.where.values():
            re.compile(str(pattern))
    args = config.training_arguments()
    assert args.learning_rate > 0 and args.output_dir == str(tmp_path / "run")


def test_there_are_shipped_configurations():
    assert SHIPPED


@pytest.mark.parametrize("name", ["mini_permissive", "mini_permissive_text"])
def test_permissive_configurations_name_permissive_corpora_alone(name, monkeypatch, tmp_path):
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    file = SHIPPED[0].parent / f"{name}.yaml"
    config = parse_run_config([str(file)])
    assert config.left_out == [] and "licences: permissive" in file.read_text()


PAPER = {  # Table of hyper-parameters: rank, effective batch, learning rate, warm-up, strides
    "multitask_wlm": (16, 768, 1e-3, 100, [2, 2]),
    "multitask_brq": (16, 2048, 5e-3, 50_000, [2, 1]),
    **{f"task_ft_{task}": (8, 768, 1e-3, 100, [2, 2]) for task in "asr st ic_sf kwe_kws er_asc sc ac sns".split()},
}


@pytest.mark.parametrize("name", PAPER)
def test_configurations_of_the_paper_have_its_hyper_parameters(name, monkeypatch, tmp_path):
    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path))
    file = SHIPPED[0].parent / f"{name}.yaml"
    config = parse_run_config([str(file), "--audio_base", "any", "--bf16", "false", "--output_dir", str(tmp_path)])
    args = config.training_arguments()
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    found = config.model.lora_rank, batch, args.learning_rate, args.warmup_steps, config.model.projector_strides
    assert found == PAPER[name]
    assert config.model.layer_mix == ("learned" if name == "multitask_brq" else "last")
    assert config.stages[-1].until.patience == 5 and args.eval_strategy == "epoch"
    assert config.model.adapter == (
        None if name in ("task_ft_asr", "multitask_wlm", "multitask_brq") else "runs/task_ft_asr"
    )
    if name.startswith("multitask"):
        assert [(stage.tasks, stage.trains) for stage in config.stages] == [
            (["asr"], ["projector"]),
            (["asr"], None),
            (None, None),
        ]


def test_accumulation_follows_from_the_effective_batch(parse, monkeypatch):
    config = parse(NEEDED + "effective_batch_size: 24\nper_device_train_batch_size: 4\nuse_cpu: true\n")
    args = config.training_arguments()
    assert args.gradient_accumulation_steps == 6
    monkeypatch.setenv("WORLD_SIZE", "3")  # as a launcher does
    assert args._accumulation_steps() == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="is 24, no multiple of per_device_train_batch_size 4 times 4 ranks"):
        config.training_arguments()

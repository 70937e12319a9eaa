"""Launching on any number of processes: every shipped configuration of accelerate makes the same model.

All of them run on the CPU here, those for GPUs too: DeepSpeed and DDP then talk over gloo.
"""

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from safetensors.torch import load_file, save_file
from tiny_models import noise
from training_runs import ACCELERATE_LAUNCH, CONFIG, SCRIPT, assert_same_adapter, logged, run_process
from transformers import AutoModel, AutoProcessor

from speechverse.model_cards.card import is_draft


FOLDER = Path(__file__).parents[2] / "training" / "accelerate"
TYPES = {
    "cpu": DistributedType.NO,
    "gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "deepspeed_zero2_2nodes": DistributedType.DEEPSPEED,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
}
# DeepSpeed compiles its communication first, for a minute. Of DDP the fast tests launch a run by torchrun.
ON_TWO = [pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "deepspeed_zero2", "deepspeed_zero3")]


# The files


def test_every_shipped_configuration_is_known_here():
    assert {file.stem for file in FOLDER.iterdir()} == TYPES.keys()


@pytest.mark.parametrize("name", TYPES)
def test_configuration_parses(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == TYPES[name]
    assert config.mixed_precision == "no"  # the run's own configuration decides: bf16: true
    assert config.use_cpu == (name == "cpu")
    options = {action.dest for action in launch_command_parser()._actions}
    assert config.deepspeed_config.keys() <= options  # accelerate would pass over a misspelt one


@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("deepspeed")])
def test_deepspeed_follows_the_run_configuration(name):
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), str(SCRIPT)])
    arguments, _, _ = _validate_launch_command(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ""
    arguments.main_process_port = 0 if arguments.num_machines == 1 else free_port()
    _, environment = prepare_deepspeed_cmd_env(arguments)
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == ("3" if name.endswith("zero3") else "2")
    assert environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "auto"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"  # the model is built and frozen before


# Running them


@pytest.fixture(scope="module")
def launch(environment, config_file):
    """Launches a run by a shipped configuration, `options` going before the script and `arguments` after it."""

    def launch(name, folder, *arguments, options=("--num_processes", 2), expected_code=0):
        configuration = ["--config_file", FOLDER / f"{name}.yaml", "--main_process_port", 0]
        script = [SCRIPT, config_file, "--output_dir", folder, "--report_to", "none"]
        halved = ["--per_device_train_batch_size", 2] if "--num_processes" in options else []
        command = [*ACCELERATE_LAUNCH, *configuration, *options, *script, *halved, *arguments]
        return run_process(command, environment, expected_code)

    return launch


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def alone(train_here, tmp_path_factory):
    """The folder of the run that all others are compared to: one process, which accumulates two batches a step."""
    halved = ["--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2]
    return train_here(tmp_path_factory.mktemp("alone"), *halved)


@pytest.fixture(scope="module")
def on_two(launch, tmp_path_factory):
    """Gives the folder of a run on two processes; each is made once."""
    folders = {}

    def on_two(name) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            launch(name, folders[name])
        return folders[name]

    return on_two


def assert_same_run(found, expected):
    for key in ("loss", "eval_loss"):
        assert logged(found, key) == pytest.approx(logged(expected, key), abs=1e-4)
    assert logged(found, "grad_norm") == pytest.approx(logged(expected, "grad_norm"), rel=1e-3)
    assert len(logged(found, "loss")) == 6
    assert_same_adapter(found, expected, 1e-4)


@pytest.mark.parametrize("name", ON_TWO)
def test_two_processes_make_the_steps_of_one(name, on_two, alone):
    folder = on_two(name)
    assert len(list(folder.glob("checkpoint-6/rng_state_?.pth"))) == 2  # there really were two
    assert_same_run(folder, alone)
    assert is_draft(folder / "README.md")  # of a model that ZeRO-3 has in parts
    assert "6 steps, seed 42" in (folder / "README.md").read_text(encoding="utf-8")
    start = load_file(alone / "checkpoint-2" / "model.safetensors")
    assert max((t - start[n]).abs().max() for n, t in load_file(alone / "model.safetensors").items()) > 1e-3


THREE_STAGES = """
curriculum:
  - {name: align, tasks: [asr], trains: [projector], steps: 20}
  - {name: join, tasks: [asr], steps: 20, warmup_steps: 3}
  - {name: all, steps: 20}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "deepspeed_zero2", "deepspeed_zero3"])
def test_sixty_steps_through_three_stages_are_those_of_one_process(name, environment, train_here, tmp_path):
    config = tmp_path / "stages.yaml"
    config.write_text(CONFIG.replace("max_steps: 6", "").replace("warmup_steps: 0", "warmup_steps: 5") + THREE_STAGES)
    options = ["--report_to", "none", "--save_strategy", "no", "--eval_steps", 30, "--per_device_train_batch_size", 2]
    alone = train_here(tmp_path / "alone", *options, "--gradient_accumulation_steps", 2, config=config)
    launcher = ["--config_file", FOLDER / f"{name}.yaml", "--main_process_port", 0, "--num_processes", 2]
    run_process(
        [*ACCELERATE_LAUNCH, *launcher, SCRIPT, config, "--output_dir", tmp_path / "two", *options], environment
    )
    assert logged(alone, "stage") == logged(tmp_path / "two", "stage") == [1] * 20 + [2] * 20 + [3] * 20
    assert logged(tmp_path / "two", "loss") == pytest.approx(logged(alone, "loss"), abs=1e-4)
    assert logged(tmp_path / "two", "eval_loss") == pytest.approx(logged(alone, "eval_loss"), abs=1e-4)
    assert_same_adapter(tmp_path / "two", alone, 1e-3)


@pytest.mark.parametrize("name", ["alone", *ON_TWO])
def test_no_checkpoint_holds_a_frozen_weight(name, on_two, alone):
    folder = alone if name == "alone" else on_two(name)
    adapter = load_file(alone / "model.safetensors")
    learned = sum(tensor.numel() for tensor in adapter.values())
    for checkpoint in folder.glob("checkpoint-*"):
        files = [file for file in checkpoint.glob("**/*") if file.suffix in (".safetensors", ".pt", ".bin", ".pth")]
        stored = load_file(checkpoint / "model.safetensors")
        assert {key: (t.shape, t.dtype) for key, t in stored.items()} == {
            key: (t.shape, torch.float32) for key, t in adapter.items()
        }
        # Adam's two averages of each; DeepSpeed also keeps the fp32 weights, and copies of them on every rank.
        copies = 2 if name in ("alone", "ddp") else 5
        states = [torch.load(f, weights_only=False) for f in files if f.name != "model.safetensors"]
        numbers = [tensor.numel() for tensor in tensors_in(states)]
        assert 2 * learned <= sum(numbers) < copies * learned + 2_000
        modules = [state["module"] for state in states if "module" in state]
        assert all(module.keys() == adapter.keys() for module in modules)
        assert sum(file.stat().st_size for file in files) < 4 * (copies + 1) * learned + 40_000 * len(files)


def tensors_in(value):
    """Every tensor of floats within lists and dicts."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


@pytest.mark.parametrize("name", ON_TWO)
def test_adapters_of_all_launches_answer_alike(name, on_two, alone, environment, monkeypatch):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", environment["SPEECHVERSE_FOUNDATIONS"])
    logits, answers = {}, {}
    for folder in (alone, on_two(name)):
        model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        inputs = processor(text=["which colour ?"] * 2, audio=[noise(0.6), noise(0.9, 1)], sampling_rate=16_000)
        labels = torch.tensor([[7, 9, 1], [10, 1, 0]])
        logits[folder] = model(**inputs, labels=labels).logits
        beams = model.generate(**inputs, num_beams=4, num_return_sequences=4, min_new_tokens=3, max_new_tokens=6)
        answers[folder] = beams.tolist()
    torch.testing.assert_close(logits[on_two(name)], logits[alone], atol=1e-4, rtol=0)
    assert answers[on_two(name)] == answers[alone]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_one_process_is_launched(name, launch, alone, tmp_path):
    launch(name, tmp_path, options=())
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TWO)
def test_bf16_is_asked_for_by_the_run_configuration(name, launch, alone, tmp_path):
    launch(name, tmp_path, "--bf16", "true")
    partitions = [file.name for file in tmp_path.glob("checkpoint-6/global_step6/*_optim_states.pt")]
    assert all(file.startswith("bf16_") for file in partitions)
    assert logged(tmp_path, "loss") == pytest.approx(logged(alone, "loss"), rel=1e-2)
    assert logged(tmp_path, "loss") != pytest.approx(logged(alone, "loss"), rel=1e-6)
    for tensor in load_file(tmp_path / "model.safetensors").values():
        assert tensor.dtype is torch.float32


@pytest.mark.slow
def test_two_nodes_are_launched(launch, alone, tmp_path):
    port = free_port()

    def launch_node(rank):
        address = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
        launch(
            "deepspeed_zero2_2nodes",
            tmp_path,
            options=["--num_machines", 2, "--num_processes", 2, "--machine_rank", rank, *address],
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(launch_node, range(2)))
    assert len(list(tmp_path.glob("checkpoint-6/rng_state_?.pth"))) == 2
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TWO)
@pytest.mark.parametrize("step", [2, 4])  # both within an epoch
def test_resumed_run_equals_the_uninterrupted_one(name, step, launch, on_two, tmp_path):
    shutil.copytree(on_two(name) / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    launch(name, tmp_path, "--resume_from_checkpoint", "true")
    for key in ("loss", "eval_loss", "grad_norm", "learning_rate"):
        assert logged(tmp_path, key) == logged(on_two(name), key)
    assert_same_adapter(tmp_path, on_two(name), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "saved, now, message",
    [
        ("deepspeed_zero2", "deepspeed_zero3", "under ZeRO-2 by 2 processes, and this run is under ZeRO-3 by 2"),
        ("deepspeed_zero3", "ddp", "under ZeRO-3 by 2 processes, and this run is without DeepSpeed"),
        ("ddp", "deepspeed_zero2", "holds no whole DeepSpeed checkpoint"),
    ],
)
def test_checkpoint_of_another_launch_is_refused(saved, now, message, launch, on_two, tmp_path):
    shutil.copytree(on_two(saved) / "checkpoint-4", tmp_path / "checkpoint-4")
    assert message in launch(now, tmp_path, "--resume_from_checkpoint", "true", expected_code=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepspeed_zero2", "deepspeed_zero3"])
def test_adapter_that_does_not_fit_is_refused_on_resume(name, launch, on_two, tmp_path):
    shutil.copytree(on_two(name) / "checkpoint-4", tmp_path / "checkpoint-4")
    file = tmp_path / "checkpoint-4" / "model.safetensors"
    tensors = load_file(file)
    tensors["stowaway"] = tensors.pop("multi_modal_projector.blocks.0.conv.bias")
    save_file(tensors, file, metadata={"format": "pt"})
    message = launch(name, tmp_path, "--resume_from_checkpoint", "true", expected_code=1)
    assert "blocks.0.conv.bias is missing; stowaway is not of this adapter" in message

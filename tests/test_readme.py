"""What README shows has to exist: commands, scripts, options, configurations, Python."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from accelerate.commands.launch import launch_command_parser
from tiny_models import noise, tiny_speller
from transformers import pipeline

import speechverse
from speechverse import TaskBank
from speechverse.evaluation.suite import load_suite, shipped_suites
from speechverse.training.arguments import parse_run_config


ROOT = Path(__file__).parent.parent
README = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "evaluation/README.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    in_blocks = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    in_text = re.findall(r"`((?:python|pip|make|accelerate|speechverse-[a-z-]+) [^`]+)`", README)
    return [shlex.split(line, comments=True) for line in in_blocks + in_text]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {command[1] for command in commands() if command[0] == "make"}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def console_commands() -> dict[str, str]:
    """The installed commands and the scripts behind them."""
    defined = re.findall(r'"(speechverse-[\w-]+) = speechverse\.(.+):main"', (ROOT / "setup.py").read_text())
    return {name: f"{module.replace('.', '/')}.py" for name, module in defined}


def scripts() -> dict[str, list[list[str]]]:
    used = {}
    for command in commands():
        command[0] = console_commands().get(command[0], command[0])
        for index, word in enumerate(command):
            if word.endswith(".py"):
                used.setdefault(word, []).append(command[index + 1 :])
    return used


# The libraries take most of a process's start, so they are imported once, and each script's process is forked from there.
# None of this project's own modules may be among them: that a script finds what it imports is part of the test.
ASK_FOR_HELP = """
import json, os, runpy, sys
import datasets, peft, transformers.trainer

assert "speechverse" not in sys.modules
for script in sys.argv[1:]:
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(writing, 1)
        sys.argv, sys.path[0] = [script, "--help"], os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    os.close(writing)
    with open(reading) as output:
        shown = output.read()
    print(json.dumps([script, os.waitstatus_to_exitcode(os.wait()[1]), shown]), flush=True)
"""
OWN_OPTIONS = "training/train.py"  # they are the dataclasses' fields; test_configuration covers them


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str]]:
    """The exit code and the output of each script, asked for help."""
    asked = [str(ROOT / script) for script in scripts() if script != OWN_OPTIONS]
    process = subprocess.run([sys.executable, "-c", ASK_FOR_HELP, *asked], capture_output=True, text=True, timeout=300)
    print(process.stderr, file=sys.stderr)
    return {script: (code, shown) for script, code, shown in map(json.loads, process.stdout.splitlines())}


@pytest.mark.parametrize("script", scripts())
def test_scripts_know_the_options_that_are_shown(script, helps):
    if script == OWN_OPTIONS:
        assert (ROOT / script).is_file()
        return
    code, shown = helps[str(ROOT / script)]
    assert code == 0
    for arguments in scripts()[script]:
        for option in (word for word in arguments if word.startswith("--")):
            assert option in shown, f"{script} {option}"


def test_configuration_parses(tmp_path):
    (config,) = (block for block in blocks("yaml") if "audio_base:" in block)
    file = tmp_path / "my_config.yaml"
    file.write_text(config)
    for arguments in scripts()["training/train.py"]:
        run = parse_run_config([str(file) if word.endswith(".yaml") else word for word in arguments])
        assert run.train_data and run.model.audio_base == "openai/whisper-base"


def test_suite_is_one(tmp_path):
    (suite,) = (block for block in blocks("yaml") if block.startswith("title:"))
    (tmp_path / "calls.yaml").write_text(suite)
    assert [row.id for row in load_suite(tmp_path / "calls.yaml").rows] == ["er", "quiet", "joint", "question"]


def test_shown_suites_are_the_shipped_ones():
    shown = re.findall(r"^\| (`.+`) \|.*\|.*\|.*\|$", README, flags=re.MULTILINE)
    assert {name for cell in shown for name in re.findall(r"`(\w+)`", cell)} >= set(shipped_suites())


def test_stages_and_mixture_are_read(tmp_path):
    (config,) = (block for block in blocks("yaml") if "audio_base:" in block)
    more = [block for block in blocks("yaml") if block.startswith(("curriculum:", "mixture:"))]
    file = tmp_path / "staged.yaml"
    file.write_text("\n".join([config, *more]))
    run = parse_run_config([str(file)])
    assert [stage.until for stage in run.stages][:2] == [None, None] and run.stages[2].until.task == "ic"
    assert run.stages[2].learning_rate == {"projector": 5e-4, "lora": 1e-3} and run.mixture.joint_share == 0.05


def test_launch_lines_are_complete():
    launched = [command for command in commands() if "--config_file" in command]
    assert len(launched) >= 6
    for command in launched:
        arguments = launch_command_parser().parse_args(command[2:])
        assert (ROOT / arguments.config_file).is_file() and arguments.training_script == "training/train.py"
        nodes = arguments.config_file.endswith("2nodes.yaml")
        assert (arguments.machine_rank is not None and arguments.main_process_ip is not None) == nodes


def test_task_is_one(tmp_path):
    (task,) = (block for block in blocks("yaml") if "held_out_prompts:" in block)
    (tmp_path / "urgency.yaml").write_text(task)
    (urgency,) = TaskBank.from_yaml(tmp_path / "urgency.yaml")
    assert urgency.parse("Yes.") == ("yes", [])


def test_shown_tasks_are_the_shipped_ones():
    shown = re.findall(r"^\| `(\w+)` (\S+) \|.*\| (.+) \|$", README, flags=re.MULTILINE)
    shipped = TaskBank.from_yaml(ROOT / "processing" / "tasks")
    assert sorted(shown) == [(task.id, task.name, task.metric or "none") for task in shipped]


def test_extras_exist():
    shown = {extra for group in re.findall(r'-e "\.\[(.*?)\]"', README) for extra in group.split(",")}
    listed = set(re.search(r"\(extras: (.*?)\)", README)[1].replace("`", "").split(", "))
    defined = set(re.findall(r'^    "(\w+)": \[', (ROOT / "setup.py").read_text(), flags=re.MULTILINE)) | {"dev"}
    assert shown <= listed == defined


def test_console_commands_have_their_scripts():
    for name, script in console_commands().items():
        assert "def main(" in (ROOT / script).read_text(), name
    assert {command[0] for command in commands() if command[0].startswith("speechverse-")} <= console_commands().keys()


def test_python_is_valid():
    for block in blocks("python"):
        assert ast.parse(block).body


@pytest.fixture
def shown_names(tmp_path, monkeypatch):
    """What README's Python refers to: a pipeline on a model that knows nothing, and recordings."""
    tasks = TaskBank.from_yaml(ROOT / "processing" / "tasks")
    model, processor = tiny_speller("whisper", tasks=tasks)
    model.generation_config.update(max_new_tokens=8, do_sample=False)
    ask = pipeline("speech-instruction", model=model, processor=processor)
    (tmp_path / "runs/demo/recordings").mkdir(parents=True)
    for name in ("runs/demo/recordings/weather.wav", "call.wav", "a.wav", "b.wav", "b.flac"):
        soundfile.write(tmp_path / name, noise(0.5), 16_000)
    (task,) = (block for block in blocks("yaml") if "held_out_prompts:" in block)
    (tmp_path / "urgency.yaml").write_text(task)
    monkeypatch.chdir(tmp_path)
    return {"ask": ask, "speechverse": speechverse, "model": model, "processor": processor}


def test_python_about_checkpoints_runs(shown_names):
    pytest.importorskip("silero_vad")
    run = [block for block in blocks("python") if "from_foundations" not in block]
    assert len(run) >= 8
    for block in run:
        without_loading = re.sub(r"^(ask|model|processor) = .*$", "", block, flags=re.MULTILINE)
        exec(compile(without_loading, "README.md", "exec"), shown_names)

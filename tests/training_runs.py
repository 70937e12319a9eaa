"""Whole training runs on the tests' corpus of noise: their configuration, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


SCRIPT = Path(__file__).parents[1] / "training" / "train.py"
ACCELERATE_LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

# Twelve samples in batches of four: two epochs, of three steps each.
CONFIG = """
audio_base: tiny-wavlm
text_base: tiny-t5
lora_rank: 2
train_data:
  - {manifest: $CORPUS/manifest.jsonl, where: {split: train}, task: asr, target: $answer}
  - manifest: $CORPUS/manifest.jsonl
    where: {split: train}
    instruction: ["which colour ?", "say it .", "what is said ?"]
    target: $answer
eval_data:  # three: two ranks pad their last batch with a sample that must not count
  - {manifest: $CORPUS/manifest.jsonl, where: {take: "[257]"}, task: asr, target: $answer}
max_steps: 6
per_device_train_batch_size: 4
per_device_eval_batch_size: 1
learning_rate: 1e-2
warmup_steps: 0
logging_steps: 1
eval_strategy: steps
eval_steps: 3
save_steps: 2
save_total_limit: 3
use_cpu: true
"""


def run_process(command, environment, expected_code=0) -> str:
    """Runs a command; returns what it wrote to stderr."""
    process = subprocess.run(
        [str(word) for word in command], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == expected_code, process.stderr[-6000:]
    return process.stderr


def run_on_two_ranks(program, *arguments):
    """Runs a Python file in two processes that reach each other, and find the modules that the tests find."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run_process([*TORCHRUN, program, *arguments], environment)


def logged(folder, key) -> list[float]:
    """What a finished run has logged under a key, in order."""
    log = json.loads((folder / "run.json").read_text())["log"]
    return [entry[key] for entry in log if key in entry]


def assert_same_adapter(found, expected, tolerance):
    """Compares the weights in two folders."""
    found, expected = load_file(found / "model.safetensors"), load_file(expected / "model.safetensors")
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=tolerance, rtol=0, msg=name)

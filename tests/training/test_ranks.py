"""Two ranks: what befalls one of them is everybody's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


SCRIPT = Path(__file__).parents[1] / "one_rank_alone.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def folder(manifest, foundations, tmp_path_factory):
    """What the script leaves."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, SCRIPT, manifest, foundations, folder]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 1 and "exitcode  : 143" in process.stderr, process.stderr[-3000:]
    return folder


def test_ranks_know_and_have_the_same(folder):
    first, second = (json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second


def test_signal_to_one_rank_stops_all_with_one_checkpoint(folder):
    left = json.loads((folder / "rank_0.json").read_text())
    assert (left["code"], left["step"]) == (143, 4)
    checkpoint = folder / "preempted" / "checkpoint-4"
    assert {path.name for path in checkpoint.parent.iterdir()} == {"bad_batches.jsonl", "checkpoint-4"}
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= {path.name for path in checkpoint.iterdir()}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        assert torch.equal(tensor, torch.tensor(left["weights"][name])), name


def test_bad_batch_of_one_rank_is_skipped_by_all(folder):
    left = json.loads((folder / "rank_0.json").read_text())
    assert (left["skips"], left["bad_batches"], len(left["norms"])) == ([2], 1, 3)
    [batch] = map(json.loads, (folder / "preempted" / "bad_batches.jsonl").read_text().splitlines())
    assert (batch["step"], batch["rank"], batch["loss"], len(batch["records"])) == (2, 1, "nan", 2)


def test_full_disk_of_one_rank_ends_all_with_the_same_sentence(folder):
    """Where the others wait for the weights, to see whether they are the best."""
    assert "step 1 could not be written" in json.loads((folder / "rank_1.json").read_text())["error"]
    assert not list((folder / "full").iterdir())

"""kill -9 at any moment, and the run that goes on is the run that was not killed, bit for bit."""

import multiprocessing
import random
import signal

import pytest
from killed_runs import BOUNDARY, SAVE_STEPS, STAGES, run


NUM_STEPS = sum(stage.steps for stage in STAGES)


@pytest.fixture(scope="module")
def start(manifest, foundations):
    """Runs in a new process; returns its exit code. The processes are forked from one that has imported all there is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_runs"])

    def start(folder, *when):
        process = context.Process(target=run, args=(manifest, foundations, folder, *when))
        process.start()
        process.join()
        return process.exitcode

    return start


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(folder) == 0
    return (folder / "model.safetensors").read_bytes()


def kills(seed: int, number: int) -> list[tuple[int, str]]:
    """Moments, in rising order: two in the midst of writing a checkpoint, one after that, one where a stage ends, and others."""
    draw = random.Random(seed)
    saves = draw.sample(range(SAVE_STEPS, NUM_STEPS, SAVE_STEPS), 3)
    moments = {
        saves[0]: draw.choice(["weights", "optimizer", "state"]),
        saves[1]: draw.choice(["weights", "optimizer"]),
    }
    moments |= {saves[2]: "saved"} | {BOUNDARY + 1: "begin"}
    while len(moments) < number:
        moments.setdefault(draw.randint(1, NUM_STEPS), draw.choice(["begin", "update"]))
    return sorted(moments.items())


@pytest.mark.parametrize("seed, number", [pytest.param(seed, 10, marks=pytest.mark.slow) for seed in range(3)])
def test_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(seed, number, start, uninterrupted, tmp_path):
    for step, moment in kills(seed, number):
        assert start(tmp_path, step, moment) == -signal.SIGKILL, (step, moment)
    assert start(tmp_path) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == uninterrupted
    assert not (tmp_path / ".incomplete").exists()

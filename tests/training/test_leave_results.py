"""What a run leaves when it has ended, by a callback of the Trainer."""

import json

import pytest

from speechverse.model_cards.card import is_draft
from speechverse.modeling_speechverse.base_checkpoints import fingerprint
from speechverse.training.callbacks.leave_results import LeaveResults


@pytest.fixture
def trained(make_trainer, tmp_path):
    trainer = make_trainer(folder="run", max_steps=2)
    config = {"train_data": [], "eval_data": []}
    trainer.add_callback(LeaveResults(trainer, config))
    trainer.train()
    return trainer


def test_record_is_of_the_weights_beside_it(trained, tmp_path):
    folder = tmp_path / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["fingerprint"] == fingerprint(folder) and record["steps"] == 2
    assert record["train_runtime"] > 0  # which the Trainer logs last of all
    assert (folder / "loss.png").is_file() and (folder / "training.png").is_file()


def test_ranks_but_the_first_only_take_part_in_saving(trained, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(trained, "save_model", lambda: saved.append(True))
    trained.state.is_world_process_zero = False
    (tmp_path / "run" / "run.json").unlink()
    LeaveResults(trained, {}).on_train_end(trained.args, trained.state, trained.control)
    assert saved == [True] and not (tmp_path / "run" / "run.json").exists()


def test_card_leaves_out_a_record_that_lacks_what_it_is_made_of(trained, tmp_path):
    """This run's configuration names no hyper-parameters: training goes well all the same."""
    assert is_draft(tmp_path / "run" / "README.md")
    assert "## Training" not in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")

"""`pipeline("speech-instruction")` without a model."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_models import noise, tiny_model, tiny_processor
from transformers import pipeline

from speechverse.processing import default_model
from speechverse.processing.default_model import DEFAULT_MODEL, DefaultModel, find_default_model


CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """As where the package is installed and no checkpoint lies beside the code."""
    monkeypatch.setattr(default_model, "PUBLISHED_CHECKPOINTS", tmp_path / "model_cards")


def test_error_names_the_default_and_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    with pytest.raises(
        OSError, match=rf"takes {DEFAULT_MODEL}, but neither.*model=.*make demo.*clone.*\$SPEECHVERSE_FOUNDATIONS"
    ):
        pipeline("speech-instruction")


def test_error_gives_the_cause(hub, hub_in_process, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub.create_repository(DEFAULT_MODEL, {"config.json": b"{}"}, gated=True)
    with pytest.raises(OSError, match=r"gives it \(You are trying to access a gated repo\)\. Name a checkpoint"):
        find_default_model()


@pytest.mark.parametrize("look_up", [lambda default: default["model"], lambda default: default.get("model")])
def test_default_is_looked_for_however_it_is_asked_for(look_up, monkeypatch, tmp_path):
    (tmp_path / "speechverse-mini").mkdir()
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    assert look_up(DefaultModel()) == (str(tmp_path / "speechverse-mini"), "main")
    assert DefaultModel().get("other", 1) == 1


def test_default_model_of_the_foundations_folder(monkeypatch, tmp_path):
    model = tiny_model()
    folder = tmp_path / "speechverse-mini"
    model.save_pretrained(folder)
    tiny_processor(model).save_pretrained(folder)
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    ask = pipeline("speech-instruction")
    answer = ask({"audio": noise(1.0), "sampling_rate": 16_000}, "which colour ?", max_new_tokens=2)
    assert answer.keys() == {"text", "answer"}


def test_checkouts_own_checkpoint_goes_after_the_foundations_folder(monkeypatch, tmp_path):
    published = tmp_path / "model_cards" / "speechverse-mini"
    published.mkdir(parents=True)
    (published / "config.json").write_text("{}")
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "foundations"))
    assert find_default_model() == (str(published), "main")
    (tmp_path / "foundations" / "speechverse-mini").mkdir(parents=True)
    assert find_default_model() == (str(tmp_path / "foundations" / "speechverse-mini"), "main")


def test_checkout_has_the_default_model(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS", raising=False)
    assert find_default_model() == (str(CHECKOUT / "model_cards" / "speechverse-mini"), "main")

"""`pipeline("speech-instruction")` without a model."""

import pytest
from tiny_models import noise, tiny_model, tiny_processor
from transformers import pipeline

from speechverse.processing.default_model import DEFAULT_MODEL


def test_error_names_the_default_and_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    with pytest.raises(
        OSError, match=rf"takes {DEFAULT_MODEL}, but neither.*model=.*make demo.*\$SPEECHVERSE_FOUNDATIONS"
    ):
        pipeline("speech-instruction")


def test_default_model_of_the_foundations_folder(monkeypatch, tmp_path):
    model = tiny_model()
    folder = tmp_path / "speechverse-mini"
    model.save_pretrained(folder)
    tiny_processor(model).save_pretrained(folder)
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    ask = pipeline("speech-instruction")
    answer = ask({"audio": noise(1.0), "sampling_rate": 16_000}, "which colour ?", max_new_tokens=2)
    assert answer.keys() == {"text", "answer"}

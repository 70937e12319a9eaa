"""Checkpoints that earlier versions of the code wrote go on working."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from speechverse.modeling_speechverse.configuration_speechverse import FORMAT_VERSION


FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = sorted(folder.name for folder in FIXTURES.glob("format_*"))


def test_present_format_has_a_fixture():
    assert f"format_{FORMAT_VERSION}" in FORMATS


@pytest.fixture
def unnumbered(tmp_path):
    """The fixture of the first format, as it was written before formats had a number."""
    folder = shutil.copytree(FIXTURES / "format_1", tmp_path / "unnumbered")
    file = folder / "checkpoint" / "config.json"
    config = json.loads(file.read_text())
    del config["format_version"]
    file.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", [*FORMATS, "unnumbered"])
def test_earlier_checkpoint_gives_the_same_logits(name, unnumbered, monkeypatch):
    folder = unnumbered if name == "unnumbered" else FIXTURES / name
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(folder / "bases"))
    expected = load_file(folder / "expected.safetensors")
    logits = expected.pop("logits")

    model = AutoModel.from_pretrained(folder / "checkpoint")
    torch.testing.assert_close(model(**expected).logits, logits, atol=1e-5, rtol=1e-5)

    processor = AutoProcessor.from_pretrained(folder / "checkpoint")
    inputs = processor("which colour ?", expected["input_values"][0].numpy(), sampling_rate=16_000)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert [task.id for task in processor.tasks] == ["asr", "er"]
    assert processor.parse("Red.", "er") == "red"

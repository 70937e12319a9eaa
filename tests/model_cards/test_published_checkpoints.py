"""What this repository publishes is small, licensed as its data ask, listed, and says nothing of the machine that made it."""

import json
import re
from pathlib import Path

import pytest
from hub_standin.cards import check_card
from huggingface_hub import ModelCard
from safetensors import safe_open

from speechverse.training.data.corpus import load_corpus


MODEL_CARDS = Path(__file__).parents[2] / "model_cards"
PUBLISHED = sorted(file.parent for file in MODEL_CARDS.glob("*/config.json"))
MAX_BYTES = 16e6


def test_there_are_published_checkpoints():
    assert PUBLISHED


@pytest.fixture(params=PUBLISHED, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture
def card(folder):
    return ModelCard.load(folder / "README.md")


def test_it_holds_what_was_learned_alone(folder):
    file = folder / "model.safetensors"
    assert file.stat().st_size <= MAX_BYTES
    with safe_open(file, "pt") as weights:
        names = set(weights.keys())
    learned = {name for name in names if "lora_" in name or name.startswith("multi_modal_projector.")}
    assert names and names == learned
    assert not [*folder.glob("token*"), *folder.glob("*.py"), *folder.rglob("samples.jsonl")]


def test_its_licence_is_what_its_data_ask(folder, card):
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    corpora = [load_corpus(name.split("/")[0]) for name in run["data"]["train"]["corpora"]]
    inherited = run["data"].get("inherited", {}).values()
    assert corpora and all(f"| {corpus.id}/" in card.text and corpus.licence in card.text for corpus in corpora)
    commercial = all(corpus.permissive for corpus in corpora) and all(facts["permissive"] for facts in inherited)
    assert ("-nc-" in card.data.license) != commercial
    if any("-SA-" in corpus.licence for corpus in corpora):
        assert "-sa-" in card.data.license


def test_its_card_says_which_bases_to_build(folder, card):
    assert "`speechverse-foundations --source packages --out foundations flan-t5-small`" in card.text


def test_its_card_is_one_and_it_is_listed(folder, card):
    assert check_card(str(card)) == ([], [])
    assert f"| `{folder.name}` |" in (MODEL_CARDS / "README.md").read_text(encoding="utf-8")


def test_it_names_no_folder_of_a_machine(folder):
    for file in folder.rglob("*"):
        if file.suffix in (".md", ".json", ".html"):
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", file.read_text(encoding="utf-8")), file

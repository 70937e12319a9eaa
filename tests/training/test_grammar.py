"""The grammar's sentences: what they hold, and what their splits share."""

import json
import re
import subprocess
import sys

import pytest

from speechverse.training.data import grammar
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.grammar import COMMANDS, SLOT_LABELS, SLOTS, UNSEEN_INTENTS, make_sentences
from speechverse.training.data.overlaps import overlaps


INTENTS = {intent for intents in COMMANDS.values() for intent in intents}


@pytest.fixture(scope="module")
def sentences():
    return make_sentences(1500)


def test_there_are_domains_and_intents_enough(sentences):
    assert len(COMMANDS) >= 5 and len(INTENTS - set(UNSEEN_INTENTS)) >= 12
    assert 1400 <= len(sentences) <= 1550
    assert {(row["domain"], row["intent"]) for row in sentences} == {
        (domain, intent) for domain, intents in COMMANDS.items() for intent in intents
    }
    assert len({row["text"] for row in sentences}) == len({row["sentence"] for row in sentences}) == len(sentences)


def test_slots_are_in_the_sentence_and_renderings_are_whole(sentences):
    for row in sentences:
        assert row["slots"] and all(slot["value"] in row["text"] for slot in row["slots"]), row
        for rendering in (row["text"], row["de"], row["fr"]):
            assert rendering[0].isupper() and rendering[-1] in ".?" and not set("{}") & set(rendering), row
        assert len({row["text"], row["de"], row["fr"]}) == 3, row


def test_every_rendering_has_the_slots_of_its_template():
    for templates in (t for intents in COMMANDS.values() for t in intents.values()):
        for template in templates:
            assert len({tuple(sorted(re.findall(r"{(\w+)}", wording))) for wording in template}) == 1, template


def test_no_sentence_is_in_two_splits(sentences):
    for counts in overlaps(sentences, ("text", "de")).values():
        assert counts["text"] == 0
    assert {row["split"] for row in sentences} == {"train", "validation", "test"}


def test_unseen_intents_are_in_the_test_alone(sentences):
    splits = {intent: {row["split"] for row in sentences if row["intent"] == intent} for intent in INTENTS}
    assert all(splits[intent] == {"test"} for intent in UNSEEN_INTENTS)
    assert all(len(splits[intent]) == 3 for intent in INTENTS - set(UNSEEN_INTENTS))


def test_draws_depend_on_the_seed_alone(sentences):
    assert make_sentences(1500) == sentences
    assert make_sentences(1500, seed=1) != sentences


def test_too_few_sentences_are_refused():
    with pytest.raises(ValueError, match="give 42 or more"):
        make_sentences(10)
    assert {row["split"] for row in make_sentences(42)} == {"train", "validation", "test"}


def test_corpus_describes_every_class():
    views = load_corpus("commands").views
    assert {*views["ic"].labels, *views["ic_unseen"].labels} == INTENTS
    assert set(views["ic_unseen"].labels) == set(UNSEEN_INTENTS)
    assert views["ic_unseen"].where["intent"] == "|".join(UNSEEN_INTENTS)
    assert set(views["dc"].labels) == set(COMMANDS)
    assert set(views["sf"].labels) == {SLOT_LABELS.get(name, name) for name in SLOTS}


def test_command_writes_them(tmp_path):
    file = tmp_path / "commands.jsonl"
    command = [sys.executable, grammar.__file__, "--out", str(file), "--sentences", "60"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows == make_sentences(60) and f"{file}: " in shown
    failed = subprocess.run([*command[:-1], "1"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith("error: `count` is 1")

"""The card that a run leaves: a draft of the published one, whose snippets run, and which nobody's own text gives way to."""

import json
import os
import re
import subprocess
import sys

import pytest
import soundfile
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_models import noise

from speechverse.model_cards.draft import refresh_card
from speechverse.model_cards.release import write_release
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


RESULTS = "evaluation/colours/results.json"


@pytest.fixture
def draft(checkpoint):
    """Writes the draft; returns it as text."""

    def draft():
        refresh_card(checkpoint)
        return (checkpoint / "README.md").read_text(encoding="utf-8")

    return draft


@pytest.fixture
def unmeasured(checkpoint):
    (checkpoint / RESULTS).unlink()
    return checkpoint


def test_draft_says_what_the_run_was(unmeasured, draft, bases, tmp_path):
    card = draft()
    assert "# run\n" in card and "This card is a draft: there are no results" in card
    assert ModelCard(card).data.tags and ModelCard(card).data.license is None
    for folder in (*bases, unmeasured):
        assert fingerprint(folder)[:16] in card
    assert "7 steps, seed 0, 1,234 parameters" in card and "| own/train | er | 20 | 0.15 | CC-BY-NC-4.0 |" in card
    assert "secret" not in card and str(tmp_path) not in card


def test_snippets_of_the_draft_run_in_its_folder(unmeasured, draft, bases, tmp_path):
    """In a process that lacks the package, as wherever the folder is copied to."""
    snippets = re.findall(r"```python\n(.*?)```", draft(), flags=re.DOTALL)
    assert len(snippets) == 2
    soundfile.write(unmeasured / "call.wav", noise(1.0), 16_000)
    script = "\n".join(["import sys", "sys.modules['speechverse'] = None", *snippets])
    environment = {"SPEECHVERSE_FOUNDATIONS": str(bases[0].parent), "HF_HOME": str(tmp_path / "hub")}
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=unmeasured, env=os.environ | environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.startswith("[")  # the second one prints what it was answered


def test_draft_follows_the_folder_until_somebody_edits_it(unmeasured, draft, caplog):
    first = draft()
    record = json.loads((unmeasured / "run.json").read_text())
    (unmeasured / "run.json").write_text(json.dumps(record | {"steps": 8}))
    assert "8 steps" in draft() and "8 steps" not in first
    assert not caplog.records
    edited = draft().replace("This card is a draft", "This card is mine")
    (unmeasured / "README.md").write_text(edited, encoding="utf-8")
    assert draft() == edited and "README.md was written or edited by somebody" in caplog.text


@pytest.mark.parametrize("own", ["", "# Notes\n", "\n\n"])
def test_own_file_is_not_written_over(own, unmeasured, draft):
    (unmeasured / "README.md").write_text(own)
    assert draft() == own


def test_results_are_shown_if_they_are_of_these_weights(checkpoint, draft, caplog):
    card = draft()
    assert "75.0 %" in card and "draft:" not in card and "before they were rounded" not in card
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, checkpoint / "model.safetensors")
    card = draft()
    assert "75.0 %" not in card and "This card is a draft" in card and "## Training" not in card
    assert f"{RESULTS} is about other weights" in caplog.text and "run.json is about other weights" in caplog.text


def test_results_of_a_baseline_are_not_the_models(checkpoint, draft, caplog):
    record = json.loads((checkpoint / RESULTS).read_text())
    (checkpoint / "evaluation" / "cascade").mkdir()
    system = record["system"] | {"kind": "cascade"}
    other = record | {"title": "Cascade", "fingerprint": "0", "system": system}
    (checkpoint / "evaluation" / "cascade" / "results.json").write_text(json.dumps(other))
    card = draft()
    assert "75.0 %" in card and "Cascade" not in card and not caplog.records


def test_results_of_an_unknown_kind_are_left_out(checkpoint, draft, caplog):
    (checkpoint / RESULTS).write_text("[]")
    assert "This card is a draft" in draft() and "does not say which system" in caplog.text


def test_card_of_a_release_is_no_draft(checkpoint, tmp_path, caplog):
    (tmp_path / "release").mkdir()
    write_release(checkpoint, tmp_path / "release", repo_id="org/tiny", license="mit")
    published = (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert not refresh_card(tmp_path / "release") and "or published" in caplog.text
    assert (tmp_path / "release" / "README.md").read_text(encoding="utf-8") == published


def test_published_card_is_made_anew(checkpoint, draft, tmp_path, caplog):
    card = draft()
    (tmp_path / "release").mkdir()
    write_release(checkpoint, tmp_path / "release", repo_id="org/tiny", license="cc-by-4.0")
    published = (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert 'model="org/tiny"' in published and 'model="."' in card
    assert ModelCard(published).data.license == "cc-by-4.0"
    assert "by hand" not in caplog.text
    (checkpoint / "README.md").write_text(card + "My own words.\n", encoding="utf-8")
    write_release(checkpoint, tmp_path / "release", repo_id="org/tiny")
    assert "My own words" not in (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert "by hand is not published" in caplog.text

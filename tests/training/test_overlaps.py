"""What splits share is counted."""

import json
import subprocess
import sys

from speechverse.training.data import overlaps as module
from speechverse.training.data.overlaps import overlaps


ROWS = [
    {"split": "train", "voice": "espeak-ng:en-us", "timbre": "espeak-ng:formant", "text": "Don't stop!"},
    {"split": "train", "voice": "flite:slt", "timbre": "flite:slt", "text": "Play it."},
    {"split": "validation", "voice": "flite:slt", "timbre": "flite:slt", "text": "Go on."},
    {"split": "test", "voice": "espeak-ng:en-gb", "timbre": "espeak-ng:formant", "text": "don’t stop"},
    {"split": "test", "text": "Go on"},
]


def test_shared_values_are_counted():
    assert overlaps(ROWS) == {
        ("train", "validation"): {"voice": 1, "timbre": 1, "text": 0},
        ("train", "test"): {"voice": 0, "timbre": 1, "text": 1},
        ("validation", "test"): {"voice": 0, "timbre": 0, "text": 1},
    }
    assert overlaps(ROWS[:2]) == {} == overlaps([])
    assert overlaps([{"speaker": 1}, {"speaker": 1, "split": "test"}], ("speaker",)) == {
        ("none", "test"): {"speaker": 1}
    }


def test_command_prints_the_counts(tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    command = [sys.executable, module.__file__, str(manifest)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "train and test share 0 voices, 1 timbres, 1 texts\n" in shown
    failed = subprocess.run([*command[:2], "nowhere"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith("error: nowhere is not a file")

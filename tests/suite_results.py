"""What an evaluation leaves, made up: for the tests of what becomes of it."""

from speechverse.modeling_speechverse.base_checkpoints import fingerprint


def results_of(folder, **changes) -> dict:
    """A suite's `results.json`, about the weights in a folder: a row of labels, one of free words, and a joint one."""
    row = {
        "row": "er",
        "name": "Colours | seen",
        "corpus": "own",
        "split": "test",
        "view": "er",
        "task": "er",
        "prompts": "held_out",
        "prompt": 0,
        "decoding": "constrained",
        "describe": True,
        "metric": "uar",
        "scored": "er",
        "language": "en",
        "higher_is_better": True,
        "scale": 100,
        "signature": "mean of the classes' recalls",
        "value": 0.75,
        "low": 0.6234,
        "high": 0.85,
        "resampled": "speakers",
        "clusters": 4,
        "samples": 1200,
        "unreadable": 5,
        "truncated": 1,
        "skipped": {"unreadable: secret-jane.wav": 1, "unreadable: secret-joe.wav": 2},
        "instruction": "/th/ or /s/: which | sound?",
        "paper": {"Multitask-WLM": 68.35, "Task-FT": 70},
        "paper_set": "MSP-Podcast",
        "classes": ["secret-jane", "secret-joe"],
        "note": "secret",
    }
    translation = row | {
        "row": "st",
        "name": "Into German",
        "corpus": "/home/secret/calls v2.yaml",
        "view": "st",
        "task": "st",
        "prompts": "trained",
        "decoding": "free",
        "describe": False,
        "metric": "bleu",
        "scored": "st",
        "scale": 1,
        "signature": "tok:13a|version:2",
        "value": 21.046,
        "low": None,
        "high": None,
        "resampled": "samples",
        "samples": 10,
        "unreadable": 0,
        "skipped": {},
        "paper": {},
        "paper_set": None,
    }
    joint = row | {"row": "joint", "name": "Both", "task": "asr+er", "metric": "wer", "higher_is_better": False}
    joint |= {"scored": "asr", "value": 0.1, "low": 0.05, "high": 0.2, "signature": "corpus-level"}
    manifest = row | {"row": "m", "name": "Mine", "corpus": None, "split": None, "view": None, "task": None}
    manifest |= {"scored": None, "metric": "accuracy", "value": None, "low": None, "high": None}
    return {
        "suite": "colours",
        "title": "Colours (of /home/secret/calls)",
        "source": "Somebody, arXiv 1234.5678, Table 9",
        "date": "2026-01-02",
        "command": ["python", "evaluation/run.py", f"--model={folder}", "--out", "/home/secret/a b"],
        "seed": 3,
        "hardware": "2 CPU cores",
        "versions": {"speechverse": "0.1", "torch": "2"},
        "seconds": 12.3,
        "batch_size": 16,
        "processes": 1,
        "system": {
            "kind": "speechverse",
            "name": "run",
            "model": str(folder),
            "fingerprint": fingerprint(folder),
            "host": "secret-host",
        },
        "fingerprint": fingerprint(folder),
        "results": [row, translation, joint, manifest],
        "not_asked": [{"row": "sc", "reason": "the model has no task sc", "note": "secret"}],
        "machine": "secret-host",
    } | changes

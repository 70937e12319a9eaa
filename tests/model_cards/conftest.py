"""A run's folder, for the tests of what is published of it."""

import json

import pytest
import torch
from suite_results import results_of
from tiny_models import save_bases

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, Task, TaskBank
from speechverse.model_cards.records import HYPER_PARAMETERS
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


TASKS = TaskBank([Task("er", "emotion-recognition", "Emotion", ["which colour ?"], {"red": "", "blue": ""})])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def checkpoint(bases, tmp_path):
    """A run's folder, with what a run leaves beside its checkpoint."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    model = SpeechVerseForConditionalGeneration.from_foundations(*map(str, bases), lora_rank=2)
    model.save_pretrained(folder)
    SpeechVerseProcessor.for_model(model, TASKS).save_pretrained(folder)
    source = {
        "manifest": str(tmp_path / "secret-client" / "calls.jsonl"),
        "where": {"split": "train"},
        "task": None,
        "instruction": ["/th/ or /s/: which | sound?"],
        "target": "$text",
    }
    config = dict.fromkeys(HYPER_PARAMETERS, "None") | {
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "output_dir": str(folder),
        "hub_token": "secret-token",
        "fsdp_config": f"{{'file': '{folder}/secret.json'}}",
        "train_data": [
            source,
            {
                "corpus": str(tmp_path / "secret-corpora" / "own.yaml"),
                "split": "train",
                "exclude": {"corpus": "/home/secret/other.yaml", "split": "test", "column": "text"},
            },
        ],
        "eval_data": [],
        "test_data": [{"manifest": "/home/secret/test.jsonl"}],
        "curriculum": [{"name": "all", "steps": 7, "until": {"patience": 2, "task": None}, "note": "secret"}],
        "mixture": {"temperature": 2.0, "adaptive": None, "note": "secret"},
    }
    run = {
        "config": config,
        "fingerprint": fingerprint(folder),
        "seed": 0,
        "steps": 7,
        "trainable_parameters": 1234,
        "versions": {"python": "3.12.1", "torch": "2", "secret-package": "1"},
        "hardware": {
            "device": "cuda",
            "gpus": [{"name": "Some GPU", "memory_gib": 79.2, "uuid": "secret-uuid"}] * 2,
            "world_size": 2,
            "cpu": "Some CPU",
            "cores": 8,
            "platform": "Linux x86_64",
            "host": "secret-host",
        },
        "data_seed": 0,
        "train_runtime": 12.5,
        "stages": [
            {
                "name": "projector | ASR",
                "tasks": ["asr"],
                "trains": ["projector"],
                "first_step": 0,
                "steps": 7,
                "end": "length",
                "note": "/home/secret/notes.txt",
            },
            {"name": "all", "tasks": None, "trains": ["lora"], "first_step": None, "steps": 0, "end": None},
        ],
        "data": {
            "train": {
                "samples": 33,
                "kept": 30,
                "hours": 0.25,
                "dropped": {"/home/secret/a.wav is damaged": 3},
                "corpora": {
                    "own/train": {"er": {"kept": 20, "hours": 0.15, "dropped": {}, "labels": {"secret-jane": 20}}},
                    "manifest": {"no task": {"kept": 10, "hours": 0.1, "dropped": {"secret": 3}}},
                },
            },
            "licences": {
                "own": {
                    "title": "Calls (from /home/secret/calls)",
                    "licence": "CC-BY-NC-4.0",
                    "permissive": False,
                    "speech": "synthetic",
                    "file": str(tmp_path / "secret-corpora" / "own.yaml"),
                }
            },
            "report": "data_report.json",
        },
        "trained_on": {"er": {"samples": 56, "seconds": 99.5, "tokens": 112, "speakers": ["secret-jane"]}},
        "log": [{"loss": 0.5, "grad_norm": None, "note": "secret", "step": 7}],
    }
    (folder / "run.json").write_text(json.dumps(run))
    suite = folder / "evaluation" / "colours"
    suite.mkdir(parents=True)
    (suite / "results.json").write_text(json.dumps(results_of(folder)))
    (suite / "samples.jsonl").write_text('{"audio": "secret-jane.wav"}\n')
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-7").mkdir()
    return folder

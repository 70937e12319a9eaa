"""run.json: what a run was made of, and nothing that tells whose machine it was."""

import json
import math
import platform
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_model

from speechverse.modeling_speechverse.base_checkpoints import fingerprint
from speechverse.training.data.filters import CheckedSample
from speechverse.training.data.report import DataPart, write_report
from speechverse.training.data.run_sources import CorpusSource, licences_of
from speechverse.training.data.sample import Sample
from speechverse.training.run_record import (
    corpora_learned,
    describe_hardware,
    describe_run,
    installed_versions,
    sum_by_task,
    write_run_record,
)


LOG = [
    {"step": 10, "loss": 2.0, "samples_asr": 32, "seconds_asr": 100.5, "tokens_asr": 400, "stage": 1},
    {"step": 20, "loss": 1.0, "samples_asr": 16, "seconds_asr": 50.0, "tokens_asr": 200},
    {"step": 20, "eval_loss": 1.5},
    {"step": 30, "loss": 1.0, "grad_norm": math.nan, "samples_st_de": 8, "seconds_st_de": 20.0, "tokens_st_de": 99},
    {"step": 30, "train_runtime": 61.5},
]
STAGES = [{"name": "align", "first_step": 0, "end": "length"}, {"name": "all", "first_step": None, "end": None}]


@pytest.fixture
def trainer(tmp_path):
    """What the record reads of one."""
    model = tiny_model()
    model.save_pretrained(tmp_path)
    args = SimpleNamespace(output_dir=str(tmp_path), seed=3, data_seed=None, device=torch.device("cpu"), world_size=1)
    return SimpleNamespace(args=args, model=model, state=SimpleNamespace(log_history=LOG, global_step=30))


def read(folder) -> dict:
    """As strict readers do: NaN is no JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is in run.json")

    return json.loads((folder / "run.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_record_is_written_and_read(trainer, tmp_path):
    write_run_record(describe_run(trainer, {"learning_rate": 1e-3, "odd": torch.float32}, STAGES), tmp_path)
    record = read(tmp_path)
    assert record["config"] == {"learning_rate": 1e-3, "odd": "torch.float32"}
    assert record["fingerprint"] == fingerprint(tmp_path)
    assert (record["seed"], record["data_seed"], record["steps"]) == (3, 3, 30)
    assert record["trainable_parameters"] == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert record["stages"] == STAGES and record["train_runtime"] == 61.5
    assert record["versions"]["torch"] == torch.__version__
    assert record["log"][3]["grad_norm"] is None and record["log"][:2] == LOG[:2]
    assert not list(tmp_path.glob("*.part"))


def test_what_was_trained_on_is_summed_over_the_whole_log(trainer):
    expected = {
        "asr": {"samples": 48, "seconds": 150.5, "tokens": 600},
        "st_de": {"samples": 8, "seconds": 20.0, "tokens": 99},
    }
    assert sum_by_task(LOG) == expected == describe_run(trainer, {}, [])["trained_on"]
    assert sum_by_task([{"step": 1, "loss": 1.0}]) == {}


def test_seed_of_the_data_may_be_another(trainer):
    trainer.args.data_seed = 5
    record = describe_run(trainer, {}, [])
    assert (record["seed"], record["data_seed"]) == (3, 5)


def test_runtime_is_unknown_until_the_end(trainer):
    trainer.state.log_history = LOG[:-1]
    assert describe_run(trainer, {}, [])["train_runtime"] is None


def test_data_are_those_of_the_report(trainer, tmp_path):
    assert describe_run(trainer, {}, [])["data"] is None  # a trainer of one's own may write none
    sample = Sample("a.wav", ("Say it.",), "a secret", "asr", corpus="fsdd", split="train")
    part = DataPart([CheckedSample(sample, fault, 36.0, None, None) for fault in (None, None, "silent: peak 0")])
    licences = licences_of([CorpusSource("fsdd", "mini_train")])
    write_report(tmp_path, {"train": part}, licences=licences, problems=["nothing"])
    data = describe_run(trainer, {}, [])["data"]
    assert (data["train"]["samples"], data["train"]["kept"], data["train"]["hours"]) == (3, 2, 0.02)
    assert data["train"]["corpora"] == {"fsdd/train": {"asr": {"kept": 2, "hours": 0.02, "dropped": {"silent": 1}}}}
    facts = {"title": "Free Spoken Digit Dataset", "licence": "CC-BY-SA-4.0", "permissive": True, "speech": "recorded"}
    assert data["licences"] == {"fsdd": facts}
    assert data["report"] == "data_report.json" and "a secret" not in json.dumps(data)


def test_a_checkpoint_passes_on_what_it_learned_from(tmp_path, caplog):
    used, unused = {"asr": {"kept": 2}, "er": {"kept": 0}}, {"asr": {"kept": 0}}
    train = {"corpora": {"fsdd/mini_train": used, "own.yaml/train": used, "snips/train": unused, "manifest": used}}
    # RAVDESS is validated on alone.
    licences = {name: {"licence": name} for name in ("fsdd", "own.yaml", "snips", "ravdess")}
    data = {"train": train, "licences": licences}
    assert corpora_learned(str(tmp_path)) == {}  # it does not say
    (tmp_path / "data_report.json").write_text(json.dumps(data))
    assert corpora_learned(str(tmp_path)) == {name: licences[name] for name in ("fsdd", "own.yaml")}
    data["inherited"] = {"multi30k": {"licence": "from before"}}
    (tmp_path / "run.json").write_text(json.dumps({"data": data}))
    assert corpora_learned(str(tmp_path)).keys() == {"fsdd", "own.yaml", "multi30k"}
    (tmp_path / "checkpoint-7").mkdir()
    assert corpora_learned(str(tmp_path / "checkpoint-7")) == corpora_learned(str(tmp_path))
    for silent in ("{}", '{"data": null}'):
        (tmp_path / "run.json").write_text(silent)
        assert corpora_learned(str(tmp_path)) == {} and "does not say what it has learned from" in caplog.text
        caplog.clear()


def test_packages_that_are_not_installed_have_no_version(monkeypatch):
    monkeypatch.setattr("speechverse.training.run_record.PACKAGES", ("torch", "no-such-package-of-anyone"))
    assert installed_versions().keys() == {"python", "speechverse", "torch"}


def test_machine_has_no_name(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: pytest.fail("the host's name was asked for"))
    hardware = describe_hardware(SimpleNamespace(device=torch.device("cpu"), world_size=2))
    assert hardware.keys() == {"device", "gpus", "world_size", "cpu", "cores", "platform"}
    assert (hardware["device"], hardware["gpus"], hardware["world_size"]) == ("cpu", [], 2)
    assert hardware["cores"] >= 1 and hardware["cpu"]


def test_gpus_are_told_apart(monkeypatch):
    gpus = [SimpleNamespace(name=f"GPU {index}", total_memory=80 * 2**30) for index in range(2)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    hardware = describe_hardware(SimpleNamespace(device=torch.device("cuda", 0), world_size=2))
    assert hardware["gpus"] == [{"name": "GPU 0", "memory_gib": 80.0}, {"name": "GPU 1", "memory_gib": 80.0}]

"""The baseline classifier: what it computes, that it learns, and that its folder answers a suite."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import save_bases
from transformers import AutoModel, AutoModelForAudioClassification, TrainerCallback

from speechverse.evaluation.baselines import load_system
from speechverse.evaluation.baselines.classifier import SpeechClassifier, SpeechClassifierConfig
from speechverse.evaluation.baselines.classifier_trainer import ClassifierTrainer, balanced_weights, pad_features
from speechverse.evaluation.baselines.frozen_encoder import FrozenEncoder
from speechverse.evaluation.baselines.train_classifier import build_trainer, parse, train
from speechverse.evaluation.suite import LoadedRow, SuiteRow
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.sample import Sample


CORPUS = """
id: pitches
title: Tones, high and low
licence: CC0-1.0
permissive: true
citation: nobody
access: Ask whoever wrote this test.
sources:
  - {kind: jsonl, root: $PITCHES, files: rows.jsonl, columns: {audio: audio, kind: kind, split: split},
     splits: {train: {split: train}, validation: {split: validation}}}
tasks:
  sns: {answer: kind}
"""
CONFIG = """
audio_base: tiny-whisper
text_base: tiny-t5
feature_cache_dir: $PITCHES/features
train_data: [{corpus: $PITCHES/pitches.yaml, split: train}]
eval_data: [{corpus: $PITCHES/pitches.yaml, split: validation}]
use_cpu: true
report_to: none
"""
TRAIN = ClassifierTrainer.train


def tone(frequency: float, seconds: float, seed: int) -> np.ndarray:
    time = np.arange(round(16_000 * seconds)) / 16_000
    return 0.3 * np.sin(2 * np.pi * frequency * time) + np.random.default_rng(seed).normal(scale=0.01, size=len(time))


@pytest.fixture(scope="module")
def pitches(tmp_path_factory):
    """A configuration of two kinds of tones, three of `speech` for each of `not speech`, and one recording too many."""
    folder = tmp_path_factory.mktemp("pitches")
    audio_folder, _ = save_bases(folder / "bases", audio="whisper")
    encoder = AutoModel.from_pretrained(audio_folder)
    with torch.no_grad():  # so large that tones tell in what it gives
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    encoder.save_pretrained(audio_folder)
    rows = []
    for index in range(24):
        kind = "speech" if index % 4 else "not speech"
        wave = tone(300 if index % 4 else 2000, 0.3 + 0.02 * index, index)
        soundfile.write(folder / f"{index}.wav", wave, 16_000)
        rows.append({"audio": f"{index}.wav", "kind": kind, "split": "train" if index < 16 else "validation"})
    soundfile.write(folder / "silence.wav", np.zeros(8000), 16_000)
    rows.append({"audio": "silence.wav", "kind": "not speech", "split": "train"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pitches.yaml").write_text(CORPUS.replace("$PITCHES", str(folder)))
    (folder / "run.yaml").write_text(CONFIG.replace("$PITCHES", str(folder)))
    return folder


@pytest.fixture(autouse=True)
def bases(pitches, monkeypatch):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(pitches / "bases"))


def train_in(pitches, folder, *options):
    arguments = [str(pitches / "run.yaml"), "--task", "sns", "--out", str(folder), "--max_steps", "40", *options]
    arguments += [
        "--eval_steps",
        "10",
        "--warmup_steps",
        "0",
        "--per_device_train_batch_size",
        "8",
        "--disable_tqdm",
        "true",
    ]
    config, task, args = parse([*arguments, "--use_cpu", "true"])
    trainer = build_trainer(config, task, args)
    return trainer, train(trainer, config)


@pytest.fixture(scope="module")
def finished(pitches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECHVERSE_FOUNDATIONS", str(pitches / "bases"))
        folder = pitches / "classifiers" / "sns"
        return folder, *train_in(pitches, folder)


def tiny_classifier() -> SpeechClassifier:
    torch.manual_seed(0)
    labels = dict(enumerate(["one", "two", "three"]))
    return SpeechClassifier(SpeechClassifierConfig(input_size=5, hidden_size=4, id2label=labels)).eval()


def test_logits_are_those_of_the_papers_layers():
    """Against the GRU's equations, written out frame by frame."""
    model = tiny_classifier()
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    features = torch.randn(1, 6, 5, dtype=torch.float64)

    def linear(name, inputs):
        return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    frames = linear("input_layer", features[0]).clamp(min=0)
    for layer in range(2):
        state, outputs = torch.zeros(4, dtype=torch.float64), []
        for frame in frames:
            given = weights[f"gru.weight_ih_l{layer}"] @ frame + weights[f"gru.bias_ih_l{layer}"]
            kept = weights[f"gru.weight_hh_l{layer}"] @ state + weights[f"gru.bias_hh_l{layer}"]
            reset, update = torch.sigmoid(given[:4] + kept[:4]), torch.sigmoid(given[4:8] + kept[4:8])
            new = torch.tanh(given[8:] + reset * kept[8:])
            state = (1 - update) * new + update * state
            outputs.append(state)
        frames = torch.stack(outputs)
    expected = linear("output_layer", linear("hidden_layer", frames.mean(0)).clamp(min=0))
    torch.testing.assert_close(model(features.float()).logits[0].double(), expected, atol=1e-6, rtol=1e-6)


def test_padding_changes_nothing():
    model = tiny_classifier()
    rows = [torch.randn(length, 5) for length in (7, 3, 12)]
    batch = pad_features([{"features": row} for row in rows])
    batch["audio_hidden_states"].masked_fill_(batch["audio_hidden_states_mask"][..., None] == 0, 9.0)
    alone = torch.cat([model(row[None]).logits for row in rows])
    torch.testing.assert_close(model(**batch).logits, alone, atol=1e-6, rtol=1e-6)


def test_every_class_has_the_same_share_of_the_loss():
    weights = balanced_weights([0, 0, 0, 1, 3, 3], 4)
    assert weights.tolist() == pytest.approx([6 / 9, 2, 0, 1])


def test_separable_tones_are_learned(finished):
    folder, trainer, record = finished
    assert record["uar"] == 1.0 and record["samples"] == {"train": 16, "eval": 8}
    assert record["class_weights"] == pytest.approx([16 / 24, 2.0])  # 12 and 4 samples
    assert json.loads((folder / "run.json").read_text())["best_step"] == record["best_step"]
    dropped = [json.loads(line)["reason"] for line in (folder / "dropped.jsonl").open()]
    assert len(dropped) == 1 and dropped[0].startswith("silent")
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "model.safetensors", "run.json", "data_report.json", "dropped.jsonl", "recordings.json")
    }


def test_saved_folder_gives_equal_logits(finished):
    folder, trainer, _ = finished
    loaded = AutoModelForAudioClassification.from_pretrained(folder)
    assert loaded.config.labels == ["speech", "not speech"] and loaded.config.task == "sns"
    assert loaded.config.audio_base["id"] == "tiny-whisper" and loaded.config.audio_base["fingerprint"]
    batch = pad_features([trainer.eval_dataset[index] for index in range(8)])
    torch.testing.assert_close(loaded(**batch).logits, trainer.model.eval()(**batch).logits, atol=0, rtol=0)


def test_same_seed_gives_the_same_classifier(finished, pitches, tmp_path):
    folder, _, _ = finished
    train_in(pitches, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    train_in(pitches, tmp_path / "other", "--seed", "1")
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


class Killed(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 20:
            raise KeyboardInterrupt


def test_killed_run_goes_on_as_if_it_had_not_been(finished, pitches, tmp_path, monkeypatch):
    folder, trainer, record = finished
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTrainer, "train", lambda self, **how: (self.add_callback(Killed), TRAIN(self, **how)))
        with pytest.raises(KeyboardInterrupt):
            train_in(pitches, tmp_path / "killed")
    resumed, again = train_in(pitches, tmp_path / "killed", "--resume_from_checkpoint", "true")
    losses = [[row["eval_loss"] for row in one.state.log_history if "eval_loss" in row] for one in (resumed, trainer)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (again["best_step"], again["steps"]) == (record["best_step"], record["steps"])
    patience = [one.state.stateful_callbacks["EarlyStoppingCallback"]["attributes"] for one in (resumed, trainer)]
    assert patience[0] == patience[1]


def samples_in(pitches, labels=None) -> list[Sample]:
    audios = [str(pitches / f"{index}.wav") for index in range(16, 24)]
    kinds = ["speech" if index % 4 else "not speech" for index in range(16, 24)]
    return [Sample(a, ("which ?",), kind, "sns", {}, labels) for a, kind in zip(audios, kinds, strict=True)]


def test_encoder_gives_what_the_cache_holds(pitches, tmp_path):
    encoder = FrozenEncoder("tiny-whisper")
    audios = [sample.audio for sample in samples_in(pitches)]
    cache = FeatureCache(encoder, encoder.processor, tmp_path, autocast_dtype=torch.bfloat16)
    cache.add(audios)
    for audio, found in zip(audios, encoder.encode(audios, torch.bfloat16), strict=True):
        assert found.dtype == cache[audio].dtype and found.shape == cache[audio].shape
        torch.testing.assert_close(found.float(), cache[audio].float(), atol=0.05, rtol=0.05)


def test_system_answers_by_the_classifier_of_the_task(finished, pitches):
    samples = samples_in(pitches)
    row = LoadedRow(SuiteRow("sns", {}), samples, [], [(None, "uar")])
    system = load_system("classifier", str(pitches / "classifiers"))
    assert system.why_not(row) is None and list(system.describe()["classifiers"]) == ["sns"]
    system.load(torch.device("cpu"))
    answers = [answer["answer"] for answer in system.answer(samples, row)]
    assert answers == [sample.target for sample in samples]
    assert [system.answer([sample], row)[0]["answer"] for sample in samples] == answers
    of_one = samples_in(pitches, labels={"not speech": ""})  # a row that allows one class gets no other
    assert {answer["answer"] for answer in system.answer(of_one, row)} == {"not speech"}


def test_recordings_that_the_encoder_cannot_take_are_left_out_before(finished, pitches):
    """As they are where a SpeechVerse model on this encoder is asked."""
    system = load_system("classifier", str(pitches / "classifiers"))
    rules = FilterRules(system.processor, max_audio_tokens=None, max_label_tokens=None, silence=None)
    soundfile.write(pitches / "long.wav", tone(300, system.processor.max_audio_seconds + 1, 0), 16_000)
    long = dataclasses.replace(samples_in(pitches)[0], audio=str(pitches / "long.wav"))
    faults = [one.fault for one in check_samples([*samples_in(pitches), long], rules)]
    assert faults[:-1] == [None] * 8 and faults[-1].startswith("too long")


def test_system_says_what_it_cannot_answer(finished, pitches):
    system = load_system("classifier", str(pitches / "classifiers"))
    (sample, *_) = samples_in(pitches)

    def why_not(**change):
        other = Sample(sample.audio, ("which ?",), **{"target": "speech", "task": "sns"} | change)
        return system.why_not(LoadedRow(SuiteRow("row", {}), [other], [], []))

    assert why_not(task="er") == "there are classifiers of sns alone"
    assert why_not(labels={"speech": "", "music": ""}) == (
        "the classifier of sns knows no music, only speech, not speech"
    )


def test_folder_without_classifiers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no classifier: make them by"):
        load_system("classifier", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load_system("classifier", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "task, message",
    [("dance", "There is no task 'dance'"), ("asr", "answered by text"), ("er", "no sample of task er")],
)
def test_task_that_cannot_be_learned_is_refused_at_once(task, message, pitches, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenEncoder, "__init__", lambda *args: pytest.fail("the encoder is loaded"))
    config, task, args = parse([str(pitches / "run.yaml"), "--task", task, "--out", str(tmp_path)])
    with pytest.raises(ValueError, match=message):
        build_trainer(config, task, args)

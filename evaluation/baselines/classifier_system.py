"""Classifiers of several tasks as one system that answers the rows of a suite."""

import hashlib
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from ...modeling_speechverse.base_checkpoints import fingerprint, resolve_base
from ...training.data.sample import Sample
from ..suite import LoadedRow
from ..systems import System
from .classifier import SpeechClassifier, SpeechClassifierConfig
from .classifier_trainer import pad_features
from .frozen_encoder import FrozenEncoder, encoder_processor


class ClassifierSystem(System):
    """Answers each task by the classifier that was trained for it; of the classes that a row allows, the likeliest.

    Args:
        model (`str`): a folder with a classifier's folder for each task, or one of these.

    Raises:
        FileNotFoundError: if there is no such folder, or an encoder is not found.
        ValueError: if it has no classifier, or two of one task.
    """

    kind = "classifier"

    def __init__(self, model: str):
        self.model = model
        self.folders: dict[str, Path] = {}
        self.configs: dict[str, SpeechClassifierConfig] = {}
        processors = []
        folder = Path(model)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {model} of classifiers.")
        for file in [*folder.glob(CONFIG_NAME), *sorted(folder.glob(f"*/{CONFIG_NAME}"))]:
            config = AutoConfig.from_pretrained(file.parent)
            if not isinstance(config, SpeechClassifierConfig):
                continue
            if config.task in self.folders:
                raise ValueError(
                    f"{self.folders[config.task]} and {file.parent} are both of task {config.task}: leave one there."
                )
            encoder = resolve_base(config.audio_base["id"], revision=config.audio_base["revision"])
            processors.append(encoder_processor(encoder))
            self.folders[config.task], self.configs[config.task] = file.parent, config
        if not self.folders:
            raise ValueError(
                f"{model} holds no classifier: make them by evaluation/baselines/train_classifier.py, in a folder each."
            )
        # Rows are read once for all: of the recordings that every encoder takes, as where a SpeechVerse model is asked.
        self.processor = min(processors, key=lambda one: one.max_audio_seconds or float("inf"))
        self.fingerprints = {task: fingerprint(folder) for task, folder in self.folders.items()}

    def describe(self) -> dict:
        together = hashlib.sha256(" ".join(self.fingerprints[task] for task in sorted(self.fingerprints)).encode())
        encoders = {config.audio_base["fingerprint"]: config.audio_base for config in self.configs.values()}
        return {
            "name": Path(self.model).resolve().name,
            "model": self.model,
            "fingerprint": together.hexdigest(),
            "classifiers": self.fingerprints,
            "encoders": list(encoders.values()),
        }

    def why_not(self, row: LoadedRow) -> str | None:
        sample = row.samples[0]
        if row.row.instruction is not None or sample.task not in self.configs:
            return f"there are classifiers of {', '.join(sorted(self.configs))} alone"
        known = self.configs[sample.task].labels
        wanted = {label for one in row.samples for label in one.labels or [one.target]}
        if unknown := sorted(wanted - set(known)):
            return f"the classifier of {sample.task} knows no {', '.join(unknown)}, only {', '.join(known)}"
        return None

    def load(self, device: torch.device) -> None:
        self.encoders: dict[tuple, FrozenEncoder] = {}
        self.classifiers: dict[str, SpeechClassifier] = {}
        for task, config in self.configs.items():
            key = _encoder_key(config)
            if key not in self.encoders:
                base = config.audio_base
                encoder = FrozenEncoder(base["id"], base["revision"], config.audio_dtype)
                if (found := encoder.config.audio_base["fingerprint"]) != base["fingerprint"]:
                    raise ValueError(
                        f"{self.folders[task]} was trained on {base['id']} with fingerprint {base['fingerprint']}; this "
                        f"one has {found}."
                    )
                self.encoders[key] = encoder.to(device)
            self.classifiers[task] = SpeechClassifier.from_pretrained(self.folders[task]).to(device).eval()

    @torch.no_grad()
    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        config = self.configs[samples[0].task]
        autocast_dtype = config.autocast_dtype and getattr(torch, config.autocast_dtype)
        features = self.encoders[_encoder_key(config)].encode([sample.audio for sample in samples], autocast_dtype)
        model = self.classifiers[config.task]
        batch = {
            name: tensor.to(model.device)
            for name, tensor in pad_features([{"features": rows} for rows in features]).items()
        }
        logits = model(**batch).logits.float().cpu()
        answers = []
        for sample, scores in zip(samples, logits, strict=True):
            allowed = list(sample.labels or config.labels)
            places = [config.label2id[label] for label in allowed]
            answer = allowed[int(scores[places].argmax())]
            answers.append({"text": answer, "answer": answer})
        return answers


def _encoder_key(config: SpeechClassifierConfig) -> tuple:
    return config.audio_base["fingerprint"], config.audio_dtype

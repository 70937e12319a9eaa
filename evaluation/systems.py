"""What answers the rows of a suite: a SpeechVerse model here, baselines in `baselines`."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from transformers import AutoProcessor, pipeline
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from ..modeling_speechverse.base_checkpoints import fingerprint
from ..processing.questions_speechverse import make_question
from ..processing.tasks_speechverse import TaskBank
from ..training.arguments import all_tasks
from ..training.data.recordings import open_audio
from ..training.data.sample import JointSample, Sample
from .suite import LoadedRow


class System(ABC):
    """Answers samples, a batch at a time.

    It is made without its weights, so that a mistake in what is asked is found before they are loaded.

    Attributes:
        kind (`str`): such as `speechverse` or `cascade`.
        processor ([`SpeechVerseProcessor`], *optional*): of a model that cannot take every recording.
        folder (`Path`, *optional*): where results go; a system may keep there what it would else compute twice.
    """

    kind: str
    processor = None
    folder: Path | None = None

    @abstractmethod
    def describe(self) -> dict:
        """What `results.json` keeps of it: `name`, `model` and `fingerprint`, and what else tells it from others."""

    def tasks(self, others: TaskBank) -> TaskBank:
        """The tasks that it is asked, its own before `others`."""
        return others

    def why_not(self, row: LoadedRow) -> str | None:
        """Why it cannot answer a row; `None` if it can.

        Raises:
            ValueError: if nobody could, since the row has a mistake.
        """
        return None

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Loads the weights, before the first answer."""

    @abstractmethod
    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        """Answers to a batch of a row's samples, each with `text` and `answer`, and `unread` and `truncated` where there
        is something to say, as [`SpeechInstructionAnswer`]."""


class SpeechVerseSystem(System):
    """A SpeechVerse model, asked through its pipeline.

    Args:
        model (`str`): checkpoint folder or Hub id.

    Raises:
        FileNotFoundError: if there is no such model, or its processor is missing.
    """

    kind = "speechverse"

    def __init__(self, model: str):
        self.model = model
        self.fingerprint = fingerprint(checkpoint_folder(model))
        self.processor = AutoProcessor.from_pretrained(model)
        self.ask = None

    def describe(self) -> dict:
        return {"name": Path(self.model).resolve().name, "model": self.model, "fingerprint": self.fingerprint}

    def tasks(self, others: TaskBank) -> TaskBank:
        """The model's own before `others`; from here on it can be asked all of them."""
        self.processor.tasks = all_tasks(self.processor.tasks, others)
        return self.processor.tasks

    def why_not(self, row: LoadedRow) -> str | None:
        try:
            put = make_question(self.processor, question(row.samples[0], row, self.processor.tasks))
            if put.instruction.count(self.processor.audio_token) > 1:
                raise ValueError(f"{put.instruction!r} holds {self.processor.audio_token} more than once.")
        except ValueError as error:
            raise ValueError(f"row {row.row.id}: {error}") from error
        return None

    def load(self, device: torch.device) -> None:
        # Chat models' configurations ask for sampling: every run, batch and number of processes would get other answers.
        self.ask = pipeline(
            "speech-instruction", model=self.model, processor=self.processor, device=device, do_sample=False
        )

    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        inputs = [
            {"audio": open_audio(sample.audio), **question(sample, row, self.processor.tasks)} for sample in samples
        ]
        return self.ask(inputs, batch_size=len(inputs))


def question(sample: Sample, row: LoadedRow, bank: TaskBank) -> dict:
    """What a row asks about a sample, as the pipeline takes it."""
    hints = {} if row.row.hints is None else {"hints": row.row.hints}
    if row.is_in_words(sample):
        return {"instruction": row.instruction(sample), **hints}
    decoding = {"free": {"constrained": False}, "constrained": {}, "scored": {"return_scores": True}}[row.row.decoding]
    asked = {"prompt": row.prompt(sample), "describe": row.row.describe, **hints, **decoding}
    if isinstance(sample, JointSample):
        values = {name: value for part in sample.parts for name, value in part.values.items()}
        return asked | values | {"task": list(sample.tasks), "labels": sample.labels or None}
    own = bank[sample.task].labels if sample.task in bank else None
    return asked | sample.values | {"task": sample.task, "labels": None if sample.labels == own else sample.labels}


def checkpoint_folder(model: str) -> Path:
    """Where the files of a model are on this machine, its weights among them; of a model on the Hub they are fetched.

    Raises:
        FileNotFoundError: if it has no configuration, or no processor.
    """
    for name, lacking in ((CONFIG_NAME, "a checkpoint of transformers"), (PROCESSOR_NAME, "a processor")):
        try:
            file = cached_file(model, name)
        except OSError as error:
            raise FileNotFoundError(
                f"{model} is no folder or Hub id of a model with {lacking}: {name} is missing."
            ) from error
    if not Path(model).is_dir() and not cached_file(
        model, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False
    ):
        get_checkpoint_shard_files(model, cached_file(model, SAFE_WEIGHTS_INDEX_NAME))
    return Path(file).parent

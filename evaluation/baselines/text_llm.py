"""The LLM that learned from transcripts: asked about the true words, or about those of a speech recogniser."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from ...modeling_speechverse.base_checkpoints import fingerprint
from ...processing.pipeline_speechverse import SpeechInstructionPipeline
from ...processing.questions_speechverse import make_question
from ...processing.tasks_speechverse import TaskBank
from ...training.arguments import all_tasks
from ...training.data.sample import Sample
from ...training.data.transcripts import ask_about_text, fault_of_transcript
from ..suite import LoadedRow
from ..systems import System, checkpoint_folder, question
from .speech_recognition import ASR, Hypotheses, open_recogniser


ABOUT_SOUND = ("er", "asc", "sc", "ac", "sns")  # tasks whose answers are not in the words


class TextInstructionPipeline(SpeechInstructionPipeline):
    """The pipeline of SpeechVerse with transcripts in place of recordings, so that answers are decoded, held to a form and read
    alike. An input is a dict with `transcript` and what else the pipeline's have."""

    def preprocess(self, inputs, **kwargs):
        asked = {name: value for name, value in inputs.items() if name != "transcript" and value is not None}
        put = make_question(self.processor, asked)
        text = ask_about_text(inputs["transcript"], put.instruction, self.processor.audio_token)
        input_ids = self.processor.encode(text)["input_ids"]
        return {"input_ids": [input_ids], "questions": [put], "several": False}

    def _collate(self, items: list[dict]) -> dict:
        batch = {name: [item[name] for item in items] for name in ("input_ids", "questions", "several")}
        return batch | {"audio": {}, "audio_rows": [[] for _ in items]}


class TextLlmSystem(System):
    """The oracle: the LLM is given the true words.

    Args:
        model (`str`): folder or Hub id of a checkpoint that learned from text (`input_modality: text`).

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it learned from recordings.
    """

    kind = "text"

    def __init__(self, model: str):
        self.model = model
        self.fingerprint = fingerprint(checkpoint_folder(model))
        if getattr(AutoConfig.from_pretrained(model), "input_modality", None) != "text":
            raise ValueError(
                f"{model} did not learn from text: train the LLM of a cascade by training/train.py with "
                "input_modality: text."
            )
        self.text_processor = AutoProcessor.from_pretrained(model)

    def describe(self) -> dict:
        return {"name": Path(self.model).resolve().name, "model": self.model, "fingerprint": self.fingerprint}

    def tasks(self, others: TaskBank) -> TaskBank:
        """The LLM's own before `others`; from here on it can be asked all of them."""
        self.text_processor.tasks = all_tasks(self.text_processor.tasks, others)
        return self.text_processor.tasks

    def why_not(self, row: LoadedRow) -> str | None:
        tasks = row.samples[0].tasks
        if ASR in tasks:
            return "a text LLM does not recognise speech: it is given the words"
        if about_sound := set(tasks) & set(ABOUT_SOUND):
            return f"{', '.join(sorted(about_sound))}: the answer is in the sound, not in the words"
        return self._why_no_words(row)

    def _why_no_words(self, row: LoadedRow) -> str | None:
        faults = [fault_of_transcript(sample, self.text_processor) for sample in row.samples]
        lacking = [fault for fault in faults if fault is not None]
        return f"{len(lacking)} of {len(faults)} samples have {lacking[0]}" if lacking else None

    def load(self, device: torch.device) -> None:
        model = AutoModel.from_pretrained(self.model)
        # As a SpeechVerse model is asked: chat models' configurations ask for sampling.
        self.ask = TextInstructionPipeline(model=model, processor=self.text_processor, device=device, do_sample=False)

    def words(self, samples: list[Sample]) -> list[str]:
        """What the LLM is given as the samples' words."""
        return [sample.transcript for sample in samples]

    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        inputs = [
            {"transcript": words} | question(sample, row, self.text_processor.tasks)
            for words, sample in zip(self.words(samples), samples, strict=True)
        ]
        return self.ask(inputs, batch_size=len(inputs))


class CascadeSystem(TextLlmSystem):
    """The LLM is given what a speech recogniser has heard.

    Args:
        model (`str`): as in [`TextLlmSystem`].
        asr (`str`): the recogniser: a SpeechVerse checkpoint, or any of transformers.

    Raises:
        FileNotFoundError: if one of them is not there.
        ValueError: if the LLM learned from recordings, or the recogniser is none.
    """

    kind = "cascade"

    def __init__(self, model: str, asr: str):
        super().__init__(model)
        self.recogniser = open_recogniser(asr)
        self.processor = self.recogniser.processor

    def describe(self) -> dict:
        llm, asr = super().describe(), self.recogniser.describe()
        return llm | {"name": f"{asr['name']} -> {llm['name']}", "asr": asr}

    def _why_no_words(self, row: LoadedRow) -> str | None:
        return None  # the recogniser makes them

    def load(self, device: torch.device) -> None:
        super().load(device)
        self.recogniser.load(device)
        self.hypotheses = Hypotheses(self.recogniser, self.folder)

    def words(self, samples: list[Sample]) -> list[str]:
        return self.hypotheses.of(samples)

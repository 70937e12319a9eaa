"""Speech recognisers, of SpeechVerse or of transformers, as baselines and as the first half of cascades."""

import json
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoProcessor, pipeline
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CTC_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from ...modeling_speechverse.base_checkpoints import fingerprint, resolve_base
from ...processing.audio_speechverse import load_audio
from ...training.data.recording_digests import digest_recordings
from ...training.data.recordings import audio_name, open_audio
from ...training.data.sample import Sample
from ..suite import LoadedRow
from ..systems import System


ASR = "asr"
WHISPER_SECONDS = 30.0  # what it hears at once; more is heard piece by piece, which needs its time stamps
_HEARD = "asr_{fingerprint}.{process}.jsonl"


class Recogniser(ABC):
    """Writes down what is said in recordings. Its weights are loaded by [`~Recogniser.load`].

    Args:
        model (`str`): folder, name in `$SPEECHVERSE_FOUNDATIONS` or Hub id.

    Raises:
        FileNotFoundError: if it is not found.
    """

    processor = None  # of a model that cannot take every recording

    def __init__(self, model: str):
        self.model = model
        self.folder = resolve_base(model)
        self.fingerprint = fingerprint(self.folder)

    def describe(self) -> dict:
        """What results keep of it."""
        return {"name": Path(self.model).name, "model": self.model, "fingerprint": self.fingerprint}

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Loads the weights."""

    @abstractmethod
    def transcribe(self, samples: list[Sample]) -> list[str]:
        """The words of each sample's recording."""


class SpeechVerseRecogniser(Recogniser):
    """A SpeechVerse model that was taught to write down what is said.

    Raises:
        FileNotFoundError: if it is not found.
        ValueError: if it was not taught that, or learned from text alone.
    """

    def __init__(self, model: str):
        super().__init__(model)
        if AutoConfig.from_pretrained(self.folder).input_modality == "text":
            raise ValueError(f"{model} learned from text alone (input_modality: text): it recognises no speech.")
        self.processor = AutoProcessor.from_pretrained(self.folder)
        if ASR not in self.processor.tasks:
            known = ", ".join(task.id for task in self.processor.tasks) or "none"
            raise ValueError(f"{model} was not taught the task {ASR}, only {known}: it recognises no speech.")

    def load(self, device: torch.device) -> None:
        self.ask = pipeline(
            "speech-instruction", model=str(self.folder), processor=self.processor, device=device, do_sample=False
        )

    def transcribe(self, samples: list[Sample]) -> list[str]:
        inputs = [{"audio": open_audio(sample.audio), "task": ASR} for sample in samples]
        return [answer["text"] for answer in self.ask(inputs, batch_size=len(inputs))]


class TransformersRecogniser(Recogniser):
    """Any recogniser of transformers, with a decoder of its own or CTC.

    Args:
        model (`str`): folder, name in `$SPEECHVERSE_FOUNDATIONS` or Hub id.
        language (`str`, *optional*, defaults to `"en"`): what a Whisper of many languages is told that is spoken; `None`
            lets it guess.

    Raises:
        FileNotFoundError: if it is not found.
        ValueError: if it is no speech recogniser.
    """

    def __init__(self, model: str, language: str | None = "en"):
        super().__init__(model)
        self.language = language
        self.config = AutoConfig.from_pretrained(self.folder)
        known = {*MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.values(), *MODEL_FOR_CTC_MAPPING_NAMES.values()}
        if not known & set(self.config.architectures or ()):
            found = ", ".join(self.config.architectures or ()) or self.config.model_type
            raise ValueError(f"{model} is {found}, no speech recogniser that transformers knows.")

    @property
    def is_whisper(self) -> bool:
        return self.config.model_type == "whisper"

    def describe(self) -> dict:
        return super().describe() | ({"language": self.language} if self.is_whisper else {})

    def load(self, device: torch.device) -> None:
        self.ask = pipeline("automatic-speech-recognition", model=str(self.folder), device=device)
        self.options = {}
        if self.ask.model.can_generate():
            own = self.ask.model.generation_config
            generate = {
                "num_beams": own.num_beams or 1
            }  # as the model has it: the pipeline would search by five beams
            if getattr(own, "is_multilingual", False):
                generate |= {"task": "transcribe", "language": self.language}
            self.options = {"generate_kwargs": generate}

    def transcribe(self, samples: list[Sample]) -> list[str]:
        rate = self.ask.feature_extractor.sampling_rate
        waves = [load_audio(open_audio(sample.audio), rate) for sample in samples]
        # Whisper pads every recording to 30 s, so a batch changes nothing; others do not mask their padding everywhere.
        at_once = [
            index for index, wave in enumerate(waves) if self.is_whisper and len(wave) / rate <= WHISPER_SECONDS
        ]
        texts = dict(zip(at_once, self._ask([waves[index] for index in at_once], rate), strict=True))
        for index, wave in enumerate(waves):
            if index not in texts:
                long = {"return_timestamps": True} if self.is_whisper else {}
                (texts[index],) = self._ask([wave], rate, **long)
        return [texts[index] for index in range(len(waves))]

    def _ask(self, waves: list, rate: int, **options) -> list[str]:
        if not waves:
            return []
        inputs = [{"raw": wave, "sampling_rate": rate} for wave in waves]
        return [
            answer["text"].strip() for answer in self.ask(inputs, batch_size=len(inputs), **self.options, **options)
        ]


def open_recogniser(model: str) -> Recogniser:
    """The recogniser of that name, without its weights.

    Raises:
        FileNotFoundError: if it is not found.
        ValueError: if it is none.
    """
    is_ours = AutoConfig.from_pretrained(resolve_base(model)).model_type == "speechverse"
    return (SpeechVerseRecogniser if is_ours else TransformersRecogniser)(model)


def forget_hypotheses(folder: str | Path) -> None:
    """Removes what recognisers have heard for an evaluation in a folder."""
    for file in Path(folder).glob(_HEARD.format(fingerprint="*", process="*")):
        file.unlink()


class Hypotheses:
    """What a recogniser has heard: every recording is recognised once, for all rows and for a run that goes on.

    With a folder they are kept in its `asr_FINGERPRINT.PROCESS.jsonl`, a line for each recording: `recording`, the SHA-256 of
    its bytes, `audio`, what its file is called, and `text`. Processes share what others have written before they began.

    Args:
        recogniser ([`Recogniser`]): what listens.
        folder (`Path`, *optional*): where they are kept.
    """

    def __init__(self, recogniser: Recogniser, folder: str | Path | None = None):
        self.recogniser = recogniser
        self._texts: dict[str, str] = {}
        self._file = None
        if folder is not None:
            known = recogniser.fingerprint[:8]
            self._file = Path(folder) / _HEARD.format(fingerprint=known, process=PartialState().process_index)
            for file in sorted(Path(folder).glob(_HEARD.format(fingerprint=known, process="*"))):
                self._read(file)

    def _read(self, file: Path) -> None:
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            self._texts[row["recording"]] = row["text"]
        if file == self._file and len(whole) < len(content):  # a run was killed while it wrote
            file.write_bytes(whole)

    def of(self, samples: list[Sample]) -> list[str]:
        """The hypotheses of the samples' recordings; those not heard yet are recognised, all of them at once."""
        digests = digest_recordings([sample.audio for sample in samples], show_progress=False)
        new = {digest: s for digest, s in zip(digests, samples, strict=True) if digest not in self._texts}
        if new:
            texts = dict(zip(new, self.recogniser.transcribe(list(new.values())), strict=True))
            self._texts |= texts
            if self._file is not None:
                rows = (
                    {"recording": digest, "audio": Path(audio_name(new[digest].audio)).name, "text": text}
                    for digest, text in texts.items()
                )
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("ab", buffering=0) as stream:  # in one piece, or not at all
                    stream.write(lines.encode())
        return [self._texts[digest] for digest in digests]


class RecogniserSystem(System):
    """A system that listens by a recogniser.

    Args:
        asr (`str`): folder, name in `$SPEECHVERSE_FOUNDATIONS` or Hub id of the recogniser.
    """

    def __init__(self, asr: str):
        self.recogniser = open_recogniser(asr)
        self.processor = self.recogniser.processor

    def load(self, device: torch.device) -> None:
        self.recogniser.load(device)
        self.hypotheses = Hypotheses(self.recogniser, self.folder)


class AsrSystem(RecogniserSystem):
    """A recogniser with its own decoder, which answers the rows of speech recognition."""

    kind = "asr"

    def describe(self) -> dict:
        return self.recogniser.describe()

    def why_not(self, row: LoadedRow) -> str | None:
        if row.samples[0].tasks != (ASR,) or row.row.instruction is not None:
            return "a speech recogniser only writes down what is said"
        return None

    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        return [{"text": text, "answer": text} for text in self.hypotheses.of(samples)]

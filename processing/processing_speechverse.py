"""Recordings and instructions -> what the model takes; token ids -> answers."""

import itertools
import numbers
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs, Unpack
from transformers.utils import FEATURE_EXTRACTOR_NAME, PROCESSOR_NAME, cached_file

from .audio_speechverse import MIN_SECONDS, audio_name, load_audio
from .constraints_speechverse import ConstraintBuilder
from .tasks_speechverse import TASKS_NAME, ParsedAnswer, TaskBank
from .token_constraint_speechverse import TokenConstraint


AUDIO_TOKEN = "<audio>"
IGNORED_LABEL = -100
# Every kind of audio input, with the name of its mask.
AUDIO_INPUTS = {
    "input_values": "padding_mask",
    "input_features": "input_features_mask",
    "audio_hidden_states": "audio_hidden_states_mask",
}
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")
LOCATION_ARGUMENTS = (*HUB_ARGUMENTS, "revision", "subfolder")  # the last two are a checkpoint's own, not its bases'
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")  # of which every saved tokenizer has one


class SpeechVerseTextKwargs(TypedDict, total=False):
    padding: bool | str | None
    max_length: int | None
    padding_side: Literal["left", "right"] | None
    return_tensors: str | None


class SpeechVerseAudioKwargs(TypedDict, total=False):
    sampling_rate: int | None
    return_tensors: str | None


class SpeechVerseProcessorKwargs(ProcessingKwargs, total=False):
    """What a call takes beside its inputs, flat or in `text_kwargs` and `audio_kwargs`, as in transformers."""

    text_kwargs: SpeechVerseTextKwargs
    audio_kwargs: SpeechVerseAudioKwargs


class SpeechVerseProcessor(ProcessorMixin):
    """Makes the inputs of a SpeechVerse model, and reads its answers.

    Args:
        feature_extractor: the encoder's own.
        tokenizer: the LLM's own; the audio token is added to it.
        encoder_convolutions, projector_convolutions (`list[tuple[int, int, int]]`, *optional*): kernel size, stride and
            padding of every convolution over time, from the encoder's input to its frames and from there to the
            projected ones; they tell how many audio tokens a recording takes. Without them it takes text alone.
        max_audio_steps (`int`, *optional*): longest input of the encoder, in steps of its time axis.
        is_encoder_decoder (`bool`, *optional*, defaults to `True`): whether the LLM is one. A decoder-only LLM is
            spoken to in its chat template, where it has one.
        audio_token (`str`, *optional*, defaults to `"<audio>"`): stands for a recording in an instruction.
        tasks ([`TaskBank`], *optional*): the tasks that the model was trained on.
    """

    valid_processor_kwargs = SpeechVerseProcessorKwargs

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        encoder_convolutions=None,
        projector_convolutions=None,
        max_audio_steps=None,
        is_encoder_decoder=True,
        audio_token=AUDIO_TOKEN,
        tasks=None,
        chat_template=None,
    ):
        self.encoder_convolutions = encoder_convolutions and [list(c) for c in encoder_convolutions]
        self.projector_convolutions = projector_convolutions and [list(c) for c in projector_convolutions]
        self.max_audio_steps = max_audio_steps
        self.is_encoder_decoder = is_encoder_decoder
        self.audio_token = audio_token
        self.tasks = tasks if tasks is not None else TaskBank()
        tokenizer.add_tokens([audio_token], special_tokens=True)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.constraints = ConstraintBuilder(tokenizer, self.answer_ids)

    @classmethod
    def for_model(cls, model, tasks: TaskBank | None = None, feature_extractor=None, tokenizer=None):
        """The processor of a model that was just joined from its bases.

        Args:
            model: a [`SpeechVerseForConditionalGeneration`].
            tasks ([`TaskBank`], *optional*): what it will be trained on.
            feature_extractor, tokenizer (*optional*): by default those in the folders of the model's bases.

        Raises:
            ValueError: if the bases' folders are not known, or the tokenizer is not that of the model's LLM.
        """
        if model.base_folders is None and (feature_extractor is None or tokenizer is None):
            raise ValueError(
                "This model was not just joined from its bases: load the processor of its checkpoint by "
                "AutoProcessor.from_pretrained, or pass feature_extractor= and tokenizer=."
            )
        feature_extractor = feature_extractor or AutoFeatureExtractor.from_pretrained(model.base_folders["audio"])
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model.base_folders["text"])
        processor = cls(
            feature_extractor,
            tokenizer,
            encoder_convolutions=model.encoder_convolutions,
            projector_convolutions=model.projector_convolutions,
            max_audio_steps=model.audio_family.max_input_length,
            is_encoder_decoder=model.config.is_encoder_decoder,
            tasks=tasks,
        )
        processor._refuse_other_tokenizer(model.config)
        return processor

    def _refuse_other_tokenizer(self, config):
        if self.audio_token_id != config.audio_token_id:
            raise ValueError(
                f"The tokenizer gives {self.audio_token} the id {self.audio_token_id}, the model expects "
                f"{config.audio_token_id}: they are not of the same base. Give "
                "text_base= the base that the model was trained on."
            )

    @property
    def audio_input_name(self) -> str:
        """`input_values` for an encoder of waveforms, `input_features` for one of mel frames."""
        return self.feature_extractor.model_input_names[0]

    @property
    def min_audio_seconds(self) -> float:
        """Shortest recording that is taken, in seconds."""
        return MIN_SECONDS

    @property
    def max_audio_seconds(self) -> float | None:
        """Longest recording that is taken, in seconds; `None` where there is no bound."""
        if self.max_audio_steps is None:
            return None
        samples_per_step = self.feature_extractor.hop_length if self.audio_input_name == "input_features" else 1
        return self.max_audio_steps * samples_per_step / self.feature_extractor.sampling_rate

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", self.audio_input_name, AUDIO_INPUTS[self.audio_input_name]]

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio=None,
        *,
        task: str | list[str] | None = None,
        labels=None,
        text_target=None,
        **kwargs: Unpack[SpeechVerseProcessorKwargs],
    ) -> BatchFeature:
        """Makes a padded batch.

        Args:
            text (`str` or `list[str]`, *optional*): the instructions. A recording stands before its instruction, or
                wherever `<audio>` stands in it. One instruction serves all recordings.
            audio (*optional*): one recording or a list of them, each in any form that
                [`~audio_speechverse.load_audio`] takes; without any the input is text alone.
            task (`str` or `list[str]`, *optional*): a task of the bank, in place of `text`: its first prompt is used.
                Several are answered together, see [`~tasks_speechverse.JointTask`].
            labels (`dict[str, str]` or `list[str]`, *optional*): classes that the task lists in place of its own; with
                their descriptions, if they have any. For several tasks, a dict of those by task id.
            text_target (`str` or `list[str]`, *optional*): the answers, to learn from; adds `labels`.
            **kwargs: flat or, as in transformers, in `text_kwargs`, `audio_kwargs` or `common_kwargs`:
                sampling_rate (`int`, *optional*): rate of bare arrays, Hz.
                padding (`bool` or `str`, *optional*, defaults to `"longest"`): `"max_length"` pads tokens to `max_length`;
                    `False` refuses rows of different length. What the tokenizer was made with counts, too.
                max_length (`int`, *optional*): for `padding="max_length"`; nothing is ever cut.
                padding_side (`str`, *optional*): see [`~SpeechVerseProcessor.pad`].
                return_tensors (`str`, *optional*, defaults to `"pt"`): only PyTorch tensors are made.
                What the task's prompts ask for, too: `keyword="radio"`, `language="German"`.

        Returns:
            `BatchFeature` with `input_ids` and `attention_mask` `(batch, length)`, int64; with audio, either
            `input_values` `(num_audios, samples)` and `padding_mask`, or `input_features` `(num_audios, mel bins, mel
            frames)` and `input_features_mask`; and `labels` where there are targets.

        Raises:
            KeyError: if the bank has no such task.
            TypeError: if an argument is neither known here nor asked for by the task.
            ValueError: if instructions, recordings and targets do not match in number, a recording cannot be used, or
                the task needs something that is not given.
        """
        if (text is None) == (task is None):
            raise ValueError("Give either an instruction (text=) or a task (task=).")
        known = None if task is None else self.tasks.find(task)
        task_values = {name: kwargs.pop(name) for name in (known.fields if known else ()) if name in kwargs}
        text_kwargs, audio_kwargs = self._call_options(kwargs, known)
        if known is not None:
            text = known.instruction(labels=labels, **task_values)
        elif labels is not None:
            raise TypeError("labels stand in for the classes of a task: give it (task=), too.")
        audios = [] if audio is None else flatten_audio(audio)
        if audio is not None and not audios:
            raise ValueError("audio is an empty list: give a recording, or leave audio out for text alone.")
        texts = list(text) if isinstance(text, (list, tuple)) else [text] * self._batch_size(text, audios)
        if not texts:
            raise ValueError("There is nothing to encode: text is an empty list.")
        if text_target is not None:
            text_target = [text_target] if isinstance(text_target, str) else list(text_target)
            if len(text_target) != len(texts):
                raise ValueError(f"There are {len(texts)} instructions but {len(text_target)} targets.")
        examples = [
            self.encode(instruction, recordings, target, sampling_rate=audio_kwargs.get("sampling_rate"))
            for instruction, recordings, target in zip(
                texts, self._share_out(texts, audios), text_target or itertools.repeat(None), strict=False
            )
        ]
        lengths = {len(example["input_ids"]) for example in examples}
        if text_kwargs.get("padding") in (False, "do_not_pad") and len(lengths) > 1:
            raise ValueError(f"Rows of {min(lengths)} to {max(lengths)} tokens make no tensor without padding.")
        max_length = text_kwargs.get("max_length") if text_kwargs.get("padding") == "max_length" else None
        return self.pad(examples, padding_side=text_kwargs.get("padding_side"), max_length=max_length)

    def _call_options(self, kwargs: dict, task=None) -> tuple[dict, dict]:
        """A call's options for text and for audio, with those that the tokenizer was made with."""
        known = {
            "text_kwargs": SpeechVerseTextKwargs.__annotations__,
            "audio_kwargs": SpeechVerseAudioKwargs.__annotations__,
        }
        known["common_kwargs"] = known["text_kwargs"] | known["audio_kwargs"]
        unknown = kwargs.keys() - known.keys() - known["common_kwargs"].keys()
        unknown = unknown.union(*((kwargs.get(group) or {}).keys() - names.keys() for group, names in known.items()))
        if unknown:
            asked = "" if task is None else f"; task {task.id!r} asks for {', '.join(task.fields) or 'nothing'}"
            raise TypeError(f"The processor takes no argument {', '.join(sorted(unknown))}{asked}.")
        # A tokenizer's padding side does not count: whether an LLM reads or writes decides it, see `pad`.
        from_tokenizer = {k: v for k, v in self.tokenizer.init_kwargs.items() if k in ("padding", "max_length")}
        merged = self._merge_kwargs(tokenizer_init_kwargs=from_tokenizer, **kwargs)
        for group in ("text_kwargs", "audio_kwargs"):
            if merged[group].get("return_tensors") not in (None, "pt"):
                raise ValueError(f"return_tensors is {merged[group]['return_tensors']!r}; only 'pt' is supported.")
        return merged["text_kwargs"], merged["audio_kwargs"]

    def _batch_size(self, text: str, audios: list) -> int:
        return len(audios) if audios and text.count(self.audio_token) <= 1 else 1

    def _share_out(self, texts: list[str], audios: list) -> list[list]:
        """The recordings of each instruction, in order."""
        if not audios and not any(self.audio_token in text for text in texts):
            return [[] for _ in texts]
        counts = [max(1, text.count(self.audio_token)) for text in texts]
        if sum(counts) != len(audios):
            raise ValueError(
                f"The {len(texts)} instructions ask for {sum(counts)} recordings ({self.audio_token} placeholders; one "
                f"where there is none), but {len(audios)} were given."
            )
        remaining = iter(audios)
        return [list(itertools.islice(remaining, count)) for count in counts]

    def encode(self, instruction: str, audios=(), target: str | None = None, *, sampling_rate=None) -> dict:
        """One example, not padded: `input_ids`, the recordings' inputs in a list, and `labels` if there is a target.

        For a decoder-only LLM `input_ids` then go on with the answer, and `labels` are -100 before it.
        """
        features = [self.extract_features(audio, sampling_rate) for audio in audios]
        return self.encode_features(instruction, self.audio_input_name, features, target)

    def encode_features(self, instruction: str, input_name: str, features: list, target: str | None = None) -> dict:
        """Like [`~SpeechVerseProcessor.encode`], from audio features that are there already.

        Args:
            instruction (`str`): the instruction.
            input_name (`str`): `input_values`, `input_features`, or `audio_hidden_states` (what the encoder gave).
            features (`list`): one array a recording: `(samples,)`, `(mel bins, mel frames)` or `(frames, hidden)`.
            target (`str`, *optional*): the answer.
        """
        if not instruction.strip():
            raise ValueError("The instruction is empty: say what to do with the recording.")
        if target is not None and self.audio_token in target:
            raise ValueError(f"The answer {target!r} holds {self.audio_token}, which only an instruction may hold.")
        if features and self.audio_token not in instruction:
            instruction = self.audio_token + instruction
        num_tokens = [self.num_audio_tokens(input_name, feature) for feature in features]
        example = {"input_ids": self._expand_audio_tokens(self._tokenize_instruction(instruction), num_tokens)}
        if features:
            example[input_name] = features
        if target is not None:
            (answer,) = self.answer_ids([target])
            if self.is_encoder_decoder:
                example["labels"] = answer
            else:
                example["labels"] = [IGNORED_LABEL] * len(example["input_ids"]) + answer
                example["input_ids"] = example["input_ids"] + answer
        return example

    def answer_ids(self, answers: list[str]) -> list[list[int]]:
        """The tokens that a model writes for answers, their ends included."""
        if self.is_encoder_decoder:
            return self.tokenizer(answers).input_ids
        end = [self.tokenizer.eos_token_id]
        return [tokens + end for tokens in self.tokenizer(answers, add_special_tokens=False).input_ids]

    def extract_features(self, audio, sampling_rate: int | None = None) -> np.ndarray:
        """The encoder's input from one recording: `(samples,)` or `(mel bins, mel frames)`, float32.

        Each recording is extracted alone, so that no other one in a batch changes it.

        Raises:
            ValueError: if it is too short or too long for the encoder, or [`~audio_speechverse.load_audio`] refuses it.
        """
        rate = self.feature_extractor.sampling_rate
        wave = load_audio(audio, rate, sampling_rate)
        inputs = self.feature_extractor(
            wave, sampling_rate=rate, padding="longest", truncation=False, return_tensors="np"
        )
        features = inputs[self.audio_input_name][0]
        seconds, steps = len(wave) / rate, features.shape[-1]
        if self.max_audio_steps is not None and steps > self.max_audio_steps:
            raise ValueError(
                f"{audio_name(audio)} lasts {seconds:.1f} s, which is too long: this encoder takes "
                f"{self.max_audio_seconds:g} s. The pipeline cuts it with chunk_length_s=; nothing is cut off silently."
            )
        if self.num_audio_tokens(self.audio_input_name, features) < 1:
            raise ValueError(
                f"{audio_name(audio)} lasts {seconds:.3f} s: too short, the encoder makes no frame of it."
            )
        return features

    def num_audio_tokens(self, input_name: str, features: np.ndarray) -> int:
        """Projected frames of one recording, which is the number of audio tokens it takes."""
        if self.encoder_convolutions is None or self.projector_convolutions is None:
            raise ValueError(
                "This processor does not know the model's convolutions, so it takes no recordings: make it by "
                "SpeechVerseProcessor.for_model, or load that of a checkpoint."
            )
        if input_name == "audio_hidden_states":  # the encoder's convolutions are behind them
            length, convolutions = features.shape[0], self.projector_convolutions
        else:
            length, convolutions = features.shape[-1], self.encoder_convolutions + self.projector_convolutions
        for kernel_size, stride, padding in convolutions:
            length = (length + 2 * padding - kernel_size) // stride + 1
        return length

    def num_instruction_tokens(self, instruction: str) -> int:
        """Tokens of an instruction, its recordings left out."""
        return sum(token != self.audio_token_id for token in self._tokenize_instruction(instruction))

    def _tokenize_instruction(self, instruction: str) -> list[int]:
        if self.is_encoder_decoder or self.tokenizer.chat_template is None:
            return self.tokenizer(instruction).input_ids
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": instruction}], add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer(chat, add_special_tokens=False).input_ids

    def _expand_audio_tokens(self, input_ids: list[int], num_tokens: list[int]) -> list[int]:
        counts = iter(num_tokens)
        return [
            token
            for input_id in input_ids
            for token in ([input_id] * next(counts) if input_id == self.audio_token_id else [input_id])
        ]

    def pad(
        self, examples: list[dict], padding_side: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Pads examples of [`~SpeechVerseProcessor.encode`] into one batch.

        Args:
            examples (`list[dict]`): the examples; all with labels, or none.
            padding_side (`str`, *optional*): side on which tokens are padded. By default `"left"` where a decoder-only
                LLM is going to write, that is without labels, and `"right"` elsewhere.
            max_length (`int`, *optional*): length to pad tokens to. By default that of the longest row.

        Returns:
            `BatchFeature`, as [`~SpeechVerseProcessor.__call__`] does; `audio_hidden_states` are `(num_audios, frames,
            hidden)`.

        Raises:
            ValueError: if a row is longer than `max_length`.
        """
        has_labels = "labels" in examples[0]
        if padding_side is None:
            padding_side = "right" if has_labels or self.is_encoder_decoder else "left"
        input_ids = [example["input_ids"] for example in examples]
        length = max(map(len, input_ids))
        if max_length is not None:
            if length > max_length:
                raise ValueError(
                    f"An input has {length} tokens, more than max_length={max_length}; nothing is cut off silently."
                )
            length = max_length
        batch = {
            "input_ids": _pad_tokens(input_ids, self.tokenizer.pad_token_id, padding_side, length),
            "attention_mask": _pad_tokens([[1] * len(ids) for ids in input_ids], 0, padding_side, length),
        }
        if has_labels:
            labels = [example["labels"] for example in examples]
            if self.is_encoder_decoder:  # a decoder-only LLM's stand beside its input
                length = max(map(len, labels))
            batch["labels"] = _pad_tokens(labels, IGNORED_LABEL, padding_side, length)
        for name, mask_name in AUDIO_INPUTS.items():
            features = [torch.as_tensor(array) for example in examples for array in example.get(name, [])]
            if features:
                time_axis = 0 if name == "audio_hidden_states" else -1
                batch[name], batch[mask_name] = _pad_features(features, time_axis)
        return BatchFeature(batch)

    def parse(self, text: str, task: str | list[str] | None = None, labels=None):
        """The typed answer in a generated text: what the task's parser makes of it; without a task, the text itself.

        Args:
            text (`str`): what the model wrote.
            task (`str` or `list[str]`, *optional*): a task of the bank, or several that were answered together.
            labels (*optional*): the classes that were listed in place of the task's own.
        """
        return self.read(text, task, labels).answer

    def read(self, text: str, task: str | list[str] | None = None, labels=None) -> ParsedAnswer:
        """Like [`~SpeechVerseProcessor.parse`], with what of the text could not be read."""
        return ParsedAnswer(text.strip(), []) if task is None else self.tasks.find(task).parse(text, labels)

    def constraint(self, task: str | list[str], labels=None) -> TokenConstraint:
        """What a model may write in answer to a task: one of its labels, its slots, or both in a joint answer's form.

        ```python
        >>> constraint = processor.constraint("ic")
        >>> sequences = model.generate(**processor(audio="call.wav", task="ic"), constraint=constraint)
        >>> processor.read_tokens(sequences[0], constraint, "ic").answer
        'play_music'
        ```

        Args:
            task (`str` or `list[str]`): a task of the bank, or several that are answered together.
            labels (*optional*): classes in place of the task's own, as they were given to the call.

        Raises:
            ValueError: if every text is an answer to the task, or if the tokenizer cannot tell its labels apart.
        """
        return self.constraints.build(self.tasks.find(task), labels)

    def label_ids(self, task: str, labels=None) -> list[list[int]]:
        """The tokens of every label, for [`~SpeechVerseForConditionalGeneration.score_labels`].

        Args:
            task (`str`): a task of the bank that is answered by a label.
            labels (*optional*): classes in place of the task's own, as they were given to the call.

        Raises:
            ValueError: if the task is not answered by a label, or if the tokenizer cannot tell its labels apart.
        """
        return self.constraints.label_ids(self.tasks.find(task), labels)

    def hint_ids(self, hints: list[str]) -> list[list[int]]:
        """The tokens of words that a transcript may hold, for [`~SpeechVerseForConditionalGeneration.generate`].

        Args:
            hints (`list[str]`): words, names or phrases, written as the transcript should write them.

        Returns:
            The tokens of every hint, as they are within a text and, where they differ there, at its beginning.

        Raises:
            ValueError: if hints are no list of texts, or one holds nothing that the tokenizer knows.
        """
        if not isinstance(hints, (list, tuple)) or not all(isinstance(hint, str) and hint.strip() for hint in hints):
            raise ValueError(f"hints are {hints!r}; they are a list of words, none of them empty.")
        sequences = []
        for hint in map(str.strip, hints):
            for ids in self.constraints.anywhere(hint):
                if self.tokenizer.unk_token_id in ids and self.tokenizer.unk_token_id is not None:
                    raise ValueError(f"The hint {hint!r} has a letter for which the LLM has no token.")
                sequences.append(ids)
        return sequences

    def read_tokens(self, tokens, constraint: TokenConstraint, task: str | list[str]) -> ParsedAnswer:
        """The typed answer of tokens that were held to a constraint.

        Labels come back exactly as they were written by whoever asked, even if the tokenizer cannot spell them.

        Args:
            tokens (`torch.LongTensor` of shape `(length,)` or `list[int]`): what the model generated: a row of what `generate`
                returns, or the tokens of the answer alone, as a list.
            constraint ([`TokenConstraint`]): what it was held to.
            task (`str` or `list[str]`): what it was asked.
        """
        if isinstance(tokens, torch.Tensor):
            tokens = tokens.tolist()[
                int(self.is_encoder_decoder) :
            ]  # an encoder-decoder's begin with the decoder's start
        pieces = []
        for piece in constraint.trace(tokens):
            text = None
            if piece.tokens is not None:
                text = self.tokenizer.decode(piece.tokens, skip_special_tokens=True).strip()
                text = text.removesuffix(piece.sign or "").strip()
            pieces.append((piece.task_id, piece.label, text))
        return self.tasks.find(task).assemble(pieces)

    def to_dict(self):
        output = super().to_dict()
        for runtime in ("tasks", "audio_token_id", "constraints"):
            output.pop(runtime, None)
        # Where transformers finds this class among a checkpoint's own files, where this package is not installed.
        return output | {"auto_map": {"AutoProcessor": "processing_speechverse.SpeechVerseProcessor"}}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Saves the feature extractor, the tokenizer, the task bank as `tasks.json`, and the code that reads them.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            push_to_hub (`bool`, *optional*, defaults to `False`): send it to the Hub, too.
            **kwargs: for the Hub, as in `push_to_hub`; `repo_id` is by default the folder's name.
        """
        # transformers copies the files that this one imports: so the pipeline's is among them.
        from .pipeline_speechverse import SpeechInstructionPipeline  # noqa: F401

        saved = super().save_pretrained(save_directory)
        self.tasks.to_json(Path(save_directory) / TASKS_NAME)
        if push_to_hub:  # not by the base class, which would not know of tasks.json
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return saved

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, audio_base=None, text_base=None, **kwargs):
        """Loads the processor of a checkpoint, with its task bank.

        A checkpoint need not hold the tokenizer and the feature extractor, which are its bases' own: what it lacks is taken
        from the bases that its configuration records, found as the model finds them.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): the checkpoint.
            audio_base, text_base (`str` or `os.PathLike`, *optional*): folders, names or Hub ids of bases that go before the
                recorded ones, as for the model; for what the checkpoint lacks.
            **kwargs: as anywhere in transformers: `revision`, `cache_dir`, `local_files_only`, `token`, ...

        Raises:
            FileNotFoundError: if a base that is needed is nowhere, saying where it was looked for and how to get it.
            OSError: if the checkpoint is not there.
            ValueError: if the tokenizer of the base is not the one that the model was trained with.
        """
        location = {name: kwargs[name] for name in LOCATION_ARGUMENTS if name in kwargs}
        given = {"audio": audio_base, "text": text_base}
        lacking = _lacking_parts(cls, pretrained_model_name_or_path, location)
        if lacking:
            processor = cls._from_bases(pretrained_model_name_or_path, given, lacking, location, **kwargs)
        else:
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        file = cached_file(
            pretrained_model_name_or_path, TASKS_NAME, _raise_exceptions_for_missing_entries=False, **location
        )
        if file is not None:
            processor.tasks = TaskBank.from_json(file)
        return processor

    @classmethod
    def _from_bases(cls, name, given: dict, lacking: set[str], location: dict, **kwargs):
        """The processor of a checkpoint that lacks the feature extractor ("audio") or the tokenizer ("text"), or both."""
        # Its own settings, such as the projector's strides, are no base's.
        if cached_file(name, PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False, **location) is None:
            raise OSError(
                f"{name} has no {PROCESSOR_NAME}, so it holds no processor: save one there by save_pretrained."
            )
        trust = {key: kwargs[key] for key in ("trust_remote_code",) if key in kwargs}
        # The configuration's class knows where bases are; it is reached by transformers, as files of a checkpoint import no
        # other folder's.
        config = AutoConfig.from_pretrained(name, **location, **trust)
        hub_arguments = {key: value for key, value in location.items() if key in HUB_ARGUMENTS}
        parts = [
            auto_class.from_pretrained(config.find_base(part, given[part], **hub_arguments))
            if part in lacking
            else auto_class.from_pretrained(name, **location, **trust)
            for part, auto_class in (("audio", AutoFeatureExtractor), ("text", AutoTokenizer))
        ]
        processor_dict, options = cls.get_processor_dict(name, **kwargs)
        processor = cls.from_args_and_dict(parts, processor_dict, **options)
        processor._refuse_other_tokenizer(config)
        return processor


def _lacking_parts(cls, name, location: dict) -> set[str]:
    """Which of "audio" (feature extractor) and "text" (tokenizer) a checkpoint has no files for."""

    def has(*files: str) -> bool:
        found = (cached_file(name, file, _raise_exceptions_for_missing_entries=False, **location) for file in files)
        return any(file is not None for file in found)

    lacking = set() if has(*TOKENIZER_FILES) else {"text"}
    if "feature_extractor" not in cls.get_processor_dict(name, **location)[0] and not has(FEATURE_EXTRACTOR_NAME):
        lacking.add("audio")
    return lacking


def flatten_audio(audio) -> list:
    """A recording, a list of them, or a list of such lists -> a list. A list of numbers is one recording."""
    if not isinstance(audio, (list, tuple)) or (audio and isinstance(audio[0], numbers.Number)):
        return [audio]
    return [recording for item in audio for recording in flatten_audio(item)]


def _pad_tokens(rows: list[list[int]], value: int, side: str, length: int) -> torch.Tensor:
    padding = ([value] * (length - len(row)) for row in rows)
    return torch.tensor([row + pad if side == "right" else pad + row for row, pad in zip(rows, padding, strict=True)])


def _pad_features(features: list[torch.Tensor], time_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-padded stack and its mask `(num_audios, time)`, 1 on real steps."""
    lengths = torch.tensor([feature.shape[time_axis] for feature in features])
    rows = [feature.movedim(time_axis, 0) for feature in features]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = (torch.arange(padded.shape[1])[None, :] < lengths[:, None]).long()
    return (padded.movedim(1, -1).contiguous() if time_axis == -1 else padded), mask


__all__ = ["SpeechVerseProcessor"]

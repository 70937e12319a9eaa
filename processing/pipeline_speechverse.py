"""`pipeline("speech-instruction")`: recordings and instructions in, answers out."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypedDict

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline, TextStreamer
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .long_form_speechverse import answer_long
from .processing_speechverse import flatten_audio
from .questions_speechverse import NO_SPEECH, OPTIONS, SPEECH_TASK, Question, make_question, options_of_tasks


TEXT_INPUTS = ("input_ids", "attention_mask")
NO_PART_OF_CONFIG = ("streamer", "logits_processor", "hint_bonus", "no_speech_threshold")  # of a call's options
ROWS_OF_QUESTIONS = 16  # several questions are answered so many at once, or as many as there are inputs in a batch


class CallbackStreamer(TextStreamer):
    """Hands finished pieces of the answer to a function, as they are generated."""

    def __init__(self, tokenizer, callback: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=False, skip_special_tokens=True)
        self.callback = callback

    def on_finalized_text(self, text: str, stream_end: bool = False):
        if text:
            self.callback(text)


class SpeechInstructionAnswer(TypedDict, total=False):
    """One answer. `text` and `answer` are always there, the others where they have something to say.

    Args:
        text (`str`): what the model wrote, or the label that it is surest of.
        answer: that text read as the task's kind of answer: a text, a label, a list of keywords or of slots, or a dict by
            task id. `None` where it could not be read so, or where no label reaches `min_score`.
        unread (`list[str]`): the parts of the text that could not be read.
        truncated (`bool`): `max_new_tokens` cut the text off.
        score (`float`): share of certainty of the surest label, 0 to 1.
        scores (`dict[str, float]`): of every label, or of `top_k`, the surest first; those of all labels sum to 1.
        no_speech (`float`): how sure the model is that nobody speaks, 0 to 1.
        segments (`list[dict]`): of a long recording, each chunk's answer with its `start` and `end` in seconds.
        skipped (`list[tuple[float, float]]`): of a long recording, start and end of the silences left out, in seconds.
    """

    text: str
    answer: object
    unread: list[str]
    truncated: bool
    score: float
    scores: dict[str, float]
    no_speech: float
    segments: list[dict]
    skipped: list[tuple[float, float]]


class SpeechInstructionPipeline(Pipeline):
    """Answers instructions about recordings.

    ```python
    >>> ask = pipeline("speech-instruction", model="org/speechverse")
    >>> ask("call.wav", "What is the caller asking for?")
    {'text': 'To listen to jazz.', 'answer': 'To listen to jazz.'}
    >>> ask({"audio": "call.wav", "task": "er"})
    {'text': 'angry', 'answer': 'angry'}
    >>> ask({"audio": "call.wav", "task": "er"}, top_k=2)
    {'text': 'angry', 'answer': 'angry', 'score': 0.81, 'scores': {'angry': 0.81, 'neutral': 0.14}}
    >>> ask({"audio": "call.wav", "task": ["asr", "er"]})
    {'text': 'ASR: stop it | Emotion: angry |', 'answer': {'asr': 'stop it', 'er': 'angry'}}
    >>> ask("call.wav", ["What is the caller asking for?", {"task": "er"}])
    [{'text': 'To listen to jazz.', 'answer': 'To listen to jazz.'}, {'text': 'angry', 'answer': 'angry'}]
    ```

    An answer is a [`SpeechInstructionAnswer`], a dict. With `num_return_sequences` above 1 every input gives a list of them,
    best first; several questions about an input give a list of their answers.

    Inputs: one recording, or a dict with `audio` and either `instruction` or `task` (and `labels`, and what else the
    task asks for, such as `keyword`); a list, a dataset (of torch or of `datasets`) or a generator of either. A dataset
    or a generator is answered lazily: iterate over what comes back. A list as a dict's `audio` holds the recordings of
    one instruction, one for each `<audio>` in it. A list as a dict's `instruction` holds several questions about its
    audio, each in words or a dict with `task`; the encoder runs once for all of them.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = True

    def __init__(self, *args, chunk_length_s: float | None = None, stride_length_s: float | None = None, **kwargs):
        self._chunking = {"chunk_length_s": chunk_length_s, "stride_length_s": stride_length_s}
        super().__init__(*args, **kwargs)

    def __call__(self, inputs, instruction: str | list[str] | None = None, **kwargs):
        """Answers.

        Args:
            inputs: see the class.
            instruction (`str` or `list`, *optional*): for inputs that bring none; one for all, or one for each of a list
                of inputs. A list for one recording holds several questions about it.
            task (`str` or `list[str]`, *optional*): likewise, a task of the model's bank, or several to be answered
                together.
            labels (`dict[str, str]` or `list[str]`, *optional*): likewise, classes in place of the task's own; for
                several tasks, a dict of those by task id. What else the tasks ask for can be given as well
                (`keyword="radio"`), and so can `prompt`, words of your own for the task, or a list with those for each of
                several tasks, and `describe`, whether they list classes with their descriptions.
            sampling_rate (`int`, *optional*): rate of bare arrays, Hz.
            batch_size (`int`, *optional*, defaults to 1): how many inputs are answered at once.
            constrained (`bool`, *optional*): whether an answer is held to its task's form: one of the labels, slots, the
                headings of a joint answer. By default it is, where the task has a form.
            return_scores (`bool`, *optional*, defaults to `False`): scores the task's labels in place of writing one.
            top_k (`int`, *optional*): likewise, and returns so many. With `do_sample` it is the option of sampling.
            min_score (`float`, *optional*): likewise, and answers `None` below it: none of these.
            hints (`list[str]`, *optional*): words that the answer may hold, such as names; each of their tokens adds
                `hint_bonus` (nats, by default 1) to the score of an answer that holds them.
            no_speech_threshold (`float`, *optional*): where the model is surer than this that nobody speaks (its task
                `sns`), it does not answer: the text is empty. Models make up words for silence and noise.
            chunk_length_s (`float`, *optional*): for recordings of any length: they are read as a stream, cut at silences into
                chunks of at most so many seconds, and each chunk is asked about. The answer then has `segments`, with
                `start` and `end` in seconds and an answer each, and `skipped`, the silences; its `text` joins theirs, and
                where answers are no free text, `answer` is their list.
            stride_length_s (`float`, *optional*): chunks of `chunk_length_s` overlap, with so many seconds of context on each
                side, in place of being cut at silences; words that two of them have are kept once.
            callback (`Callable[[str], None]`, *optional*): is handed the answer piece by piece; one input at a time.
            **kwargs: everything else goes to `generate`: `max_new_tokens`, `num_beams`, `do_sample`, ...

        Raises:
            KeyError: if the model's bank has no such task.
            ValueError: if an input has no recording or no instruction, or its task needs something that is not given.
        """
        if isinstance(instruction, (list, tuple)) and isinstance(inputs, (list, tuple)):
            if len(inputs) != len(instruction):
                raise ValueError(
                    f"There are {len(instruction)} instructions for {len(inputs)} inputs; give one for each."
                )
            inputs = [{**_as_dict(item), "instruction": text} for item, text in zip(inputs, instruction, strict=True)]
        elif instruction is not None:
            kwargs["instruction"] = instruction
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif hasattr(inputs, "column_names"):  # a datasets.Dataset, which the base class takes for one input
            inputs = (row for row in inputs)
        chunking = {name: kwargs.pop(name, default) for name, default in self._chunking.items()}
        if chunking["chunk_length_s"] is not None:
            return self._answer_long(inputs, kwargs, chunking)
        if chunking["stride_length_s"] is not None:
            raise ValueError("stride_length_s is given without chunk_length_s.")
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, **kwargs)

    def _answer_long(self, inputs, kwargs: dict, chunking: dict):
        """Answers about long recordings: all inputs of a list now, those of datasets and generators one by one."""
        if isinstance(inputs, list):
            return [self._answer_long(one, kwargs, chunking) for one in inputs]
        if isinstance(inputs, Dataset) and hasattr(inputs, "__len__"):
            return (self._answer_long(inputs[index], kwargs, chunking) for index in range(len(inputs)))
        if isinstance(inputs, (Dataset, Iterator)):
            return (self._answer_long(one, kwargs, chunking) for one in inputs)
        inputs = _as_dict(inputs)
        recordings = [] if inputs.get("audio") is None else flatten_audio(inputs["audio"])
        if len(recordings) != 1:
            raise ValueError(f"chunk_length_s is for inputs of one recording each; this one has {len(recordings)}.")
        call = self._preprocess_params | kwargs
        source = inputs if inputs.get("instruction") is not None or inputs.get("task") is not None else call
        if not isinstance(source.get("instruction"), (str, type(None))):
            raise ValueError("chunk_length_s is for one question about a recording; ask the others in other calls.")
        _, options, _ = self._sanitize_parameters(**kwargs)
        options = self._prepare_generate_kwargs({**self._forward_params, **options})
        if (self.model.generation_config_of(**_options_of_config(options)).num_return_sequences or 1) > 1:
            raise ValueError("chunk_length_s joins one answer of each chunk: leave out num_return_sequences.")
        rate = inputs.get("sampling_rate", call.get("sampling_rate"))
        return answer_long(
            lambda chunks: super(SpeechInstructionPipeline, self).__call__(chunks, **kwargs | {"num_workers": 0}),
            self.processor,
            inputs | {"audio": recordings[0]} | ({} if rate is None else {"sampling_rate": rate}),
            source.get("task"),
            **chunking,
        )

    def save_pretrained(self, save_directory, *, standalone: bool | None = None, **kwargs):
        """Saves the model and the processor, which is all that `pipeline` needs to load them again.

        The base class would leave out the processor.
        """
        self.model.save_pretrained(save_directory, standalone=standalone, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        instruction=None,
        task=None,
        sampling_rate=None,
        constrained=None,
        return_scores=None,
        top_k=None,
        min_score=None,
        hints=None,
        hint_bonus=None,
        no_speech_threshold=None,
        callback=None,
        generate_kwargs=None,
        **kwargs,
    ):
        # What `pipeline` was called with are defaults for every call: this judges what one of both gives by itself alone.
        values = {name: kwargs.pop(name) for name in options_of_tasks(self.processor) & kwargs.keys()}
        generate_kwargs = {**(generate_kwargs or {}), **kwargs}
        if top_k is not None and self._samples(generate_kwargs):
            generate_kwargs["top_k"], top_k = top_k, None
        _check_range("top_k", top_k, 1, None)
        _check_range("min_score", min_score, 0, 1)
        _check_range("no_speech_threshold", no_speech_threshold, 0, 1)
        if callback is not None:
            generate_kwargs["streamer"] = CallbackStreamer(self.processor.tokenizer, callback)
        scoring = {"top_k": top_k, "min_score": min_score}
        preprocess = {
            "instruction": instruction,
            "task": task,
            "values": values or None,
            "sampling_rate": sampling_rate,
            "constrained": constrained,
            "return_scores": return_scores,
            "hints": hints,
            "no_speech_threshold": no_speech_threshold,
            "written": ["callback" if name == "streamer" else name for name in generate_kwargs] or None,
            **scoring,
        }
        forward = generate_kwargs | {"hint_bonus": hint_bonus, "no_speech_threshold": no_speech_threshold}
        postprocess = scoring | {"no_speech_threshold": no_speech_threshold}
        return _given(preprocess), _given(forward), _given(postprocess)

    def _samples(self, generate_kwargs: dict) -> bool:
        """Whether these options, or else those that the pipeline was made with, ask for sampling."""
        known = getattr(self, "_generate_kwargs", {}) | generate_kwargs
        return self.model.generation_config_of(**_options_of_config(known)).do_sample or False

    def preprocess(
        self,
        inputs,
        instruction=None,
        task=None,
        values=None,
        sampling_rate=None,
        top_k=None,
        min_score=None,
        no_speech_threshold=None,
        written=(),
        **decoding,
    ):
        inputs = _as_dict(inputs)
        audios = [] if inputs.get("audio") is None else flatten_audio(inputs["audio"])
        if not audios:
            raise ValueError(
                "The input has no recording: give a path, or a dict with 'audio'; "
                f"it has {', '.join(inputs) or 'nothing'}."
            )
        call = _given({"instruction": instruction, "task": task, **(values or {}), **decoding})
        asked, several = _questions_of(inputs, call, self.processor)
        scored = top_k is not None or min_score is not None
        questions = [make_question(self.processor, one, scored) for one in asked]
        if (
            written
            and (scored or call.get("return_scores"))
            and all(question.decoding == "scored" for question in questions)
        ):
            raise ValueError(f"Labels are scored, not written: leave out {', '.join(written)}.")
        if no_speech_threshold is not None:
            questions.insert(0, self._speech_question(len(audios)))
        placeholder = self.processor.audio_token
        for question in questions:
            if max(1, question.instruction.count(placeholder)) != len(audios):
                raise ValueError(
                    f"The instruction has {question.instruction.count(placeholder)} {placeholder} placeholders for "
                    f"{len(audios)} recordings."
                )
        rate = inputs.get("sampling_rate", sampling_rate)
        features = [self.processor.extract_features(audio, rate) for audio in audios]
        name = self.processor.audio_input_name
        input_ids = [
            self.processor.encode_features(question.instruction, name, features)["input_ids"] for question in questions
        ]
        return {"features": {name: features}, "input_ids": input_ids, "questions": questions, "several": several}

    def _speech_question(self, num_audios: int) -> Question:
        if num_audios > 1:
            raise ValueError("no_speech_threshold is for inputs of one recording each.")
        if SPEECH_TASK not in self.processor.tasks or NO_SPEECH not in self.processor.tasks[SPEECH_TASK].labels:
            raise ValueError(
                f"no_speech_threshold needs a model that was taught speech detection: the task {SPEECH_TASK!r} with the "
                f"label {NO_SPEECH!r}."
            )
        return make_question(self.processor, {"task": SPEECH_TASK}, scored=True)

    def _forward(self, model_inputs, no_speech_threshold=None, hint_bonus=None, **generate_kwargs):
        questions = model_inputs["questions"]
        answers = [[None] * len(asked) for asked in questions]
        remaining = [(item, index) for item, asked in enumerate(questions) for index in range(len(asked))]
        audio = model_inputs["audio"]
        if len(remaining) > len(questions):
            audio = self._encode(audio)
        if no_speech_threshold is not None:
            first = [place for place in remaining if place[1] == 0]
            self._answer(first, model_inputs, audio, answers, {})
            silent = {item for item, _ in first if self._no_speech(answers[item][0]) > no_speech_threshold}
            remaining = [(item, index) for item, index in remaining if index > 0 and item not in silent]
        groups = {}
        for item, index in remaining:
            question = questions[item][index]
            apart = (item, index) if "streamer" in generate_kwargs else None  # a streamer follows one answer at a time
            groups.setdefault((apart, question.decoding, question.hint_ids is None), []).append((item, index))
        rows = max(len(questions), ROWS_OF_QUESTIONS)
        for places in groups.values():
            for start in range(0, len(places), rows):
                self._answer(places[start : start + rows], model_inputs, audio, answers, generate_kwargs, hint_bonus)
        options = _options_of_config(self._prepare_generate_kwargs(dict(generate_kwargs)))
        n_best = (self.model.generation_config_of(**options).num_return_sequences or 1) > 1
        return {
            "answers": answers,
            "questions": questions,
            "several": model_inputs["several"],
            "n_best": [n_best] * len(questions),
        }

    def _encode(self, audio: dict) -> dict:
        """The recordings as the encoder leaves them, so that it runs once for several questions."""
        encoded = self.model.get_audio_features(**audio)
        return {
            "audio_hidden_states": encoded.last_hidden_state,
            "audio_hidden_states_mask": encoded.last_hidden_state_mask.long(),
        }

    def _answer(self, places, model_inputs, audio, answers, generate_kwargs, hint_bonus=None):
        """Fills in the answers to questions of one kind, each given by its input and its index there."""
        questions = [model_inputs["questions"][item][index] for item, index in places]
        examples = [{"input_ids": model_inputs["input_ids"][item][index]} for item, index in places]
        inputs = self._ensure_tensor_on_device(dict(self.processor.pad(examples)), self.device)
        items = [item for item, _ in places]
        if items != list(range(len(model_inputs["questions"]))):
            rows = [row for item in items for row in model_inputs["audio_rows"][item]]
            audio = {name: tensor[rows] for name, tensor in audio.items()}
        if questions[0].decoding == "scored":
            scores = self.model.score_labels([question.label_ids for question in questions], **inputs, **audio)
            for (item, index), row in zip(places, scores, strict=True):
                answers[item][index] = row[: len(model_inputs["questions"][item][index].label_ids)]
            return
        options = self._prepare_generate_kwargs(dict(generate_kwargs))
        if questions[0].constraint is not None:
            options["constraint"] = [question.constraint for question in questions]
        config = self.model.generation_config_of(batch_size=len(places), **_options_of_config(options))
        if questions[0].hint_ids is not None:
            options["hint_ids"] = [question.hint_ids for question in questions]
            options |= {} if hint_bonus is None else {"hint_bonus": hint_bonus}
        sequences = self.model.generate(**inputs, **audio, **options)
        sequences = getattr(sequences, "sequences", sequences)  # of a `GenerateOutput`
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        for (item, index), rows in zip(places, sequences.reshape(len(places), -1, sequences.shape[-1]), strict=True):
            question = model_inputs["questions"][item][index]
            rows = [self._without_padding(row, ends) for row in rows.tolist()]
            answers[item][index] = [(row, _is_cut(row, question.constraint, ends, config)) for row in rows]

    def _without_padding(self, tokens: list[int], ends: list[int]) -> list[int]:
        """An answer's tokens, without the decoder's start and without what comes behind the end."""
        tokens = tokens[1:] if self.model.config.is_encoder_decoder else tokens
        end = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
        return tokens[: end + 1]

    def postprocess(self, model_outputs, top_k=None, min_score=None, no_speech_threshold=None):
        if isinstance(model_outputs["several"], list):  # a batch of one comes whole, others an input at a time
            model_outputs = {name: values[0] for name, values in model_outputs.items()}
        answers, questions = model_outputs["answers"], model_outputs["questions"]
        no_speech = {}
        if no_speech_threshold is not None:
            no_speech = {"no_speech": self._no_speech(answers[0])}
            answers, questions = answers[1:], questions[1:]
        found = []
        for question, answer in zip(questions, answers, strict=True):
            if answer is None:
                nothing = "" if question.task is None else self.processor.tasks.find(question.task).assemble([]).answer
                silent = {"text": "", "answer": nothing} | no_speech
                found.append([silent] if model_outputs["n_best"] else silent)
            elif question.decoding == "scored":
                found.append(self._scored(question, answer, top_k, min_score) | no_speech)
            else:
                texts = self.processor.batch_decode([tokens for tokens, _ in answer], skip_special_tokens=True)
                written = [
                    self._written(question, *one, text) | no_speech for one, text in zip(answer, texts, strict=True)
                ]
                found.append(written[0] if len(written) == 1 else written)
        return found if model_outputs["several"] else found[0]

    def _written(self, question: Question, tokens: list[int], is_cut: bool, text: str) -> dict:
        if question.constraint is not None:
            answer, unread = self.processor.read_tokens(tokens, question.constraint, question.task)
        else:
            answer, unread = self.processor.read(text, question.task, question.labels)
        found = {"text": text.strip(), "answer": answer}
        return found | ({"unread": unread} if unread else {}) | ({"truncated": True} if is_cut else {})

    def _scored(self, question: Question, log_probabilities, top_k, min_score) -> dict:
        probabilities = self._probabilities(question, log_probabilities)
        label, score = next(iter(probabilities.items()))
        found = {"text": label, "answer": label if score >= (min_score or 0) else None, "score": score}
        if question.return_scores or top_k is not None:
            found["scores"] = dict(list(probabilities.items())[:top_k])
        return found

    def _probabilities(self, question: Question, log_probabilities: torch.Tensor) -> dict[str, float]:
        """Every label with its share of certainty, the surest first."""
        task = self.processor.tasks[question.task]
        shares = (log_probabilities.double() / task.temperature).softmax(-1).tolist()
        labels = zip(task.classes(question.labels), shares, strict=True)
        return dict(sorted(labels, key=lambda pair: pair[1], reverse=True))

    def _no_speech(self, log_probabilities: torch.Tensor) -> float:
        return self._probabilities(Question("", SPEECH_TASK), log_probabilities)[NO_SPEECH]

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        batch = self._collate([self.preprocess(inputs, **preprocess_params)])
        return self.postprocess(self.forward(batch, **forward_params), **postprocess_params)

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        # The base class pads by keys that it knows; here the processor pads.
        dataset_class = PipelineDataset if hasattr(inputs, "__len__") else PipelineIterator
        dataset = dataset_class(inputs, self.preprocess, preprocess_params)
        loader = DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=self._collate)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def _collate(self, items: list[dict]) -> dict:
        features = [{"input_ids": [0], **item["features"]} for item in items]
        audio = {name: tensor for name, tensor in self.processor.pad(features).items() if name not in TEXT_INPUTS}
        rows = iter(range(sum(len(recordings) for item in items for recordings in item["features"].values())))
        return {
            "audio": audio,
            "audio_rows": [[next(rows) for _ in next(iter(item["features"].values()))] for item in items],
            **{name: [item[name] for item in items] for name in ("input_ids", "questions", "several")},
        }


def _questions_of(inputs: dict, call: dict, processor) -> tuple[list[dict], bool]:
    """What is asked about one input, each as [`make_question`] takes it, and whether several questions were put."""
    brought = any(inputs.get(name) is not None for name in ("instruction", "task"))
    source = inputs if brought else call  # what comes with an input goes first
    instruction, task = source.get("instruction"), source.get("task")
    several = isinstance(instruction, (list, tuple))
    if several and not instruction:
        raise ValueError("The list of instructions is empty.")
    names = options_of_tasks(processor)
    of_call = {name: value for name, value in call.items() if name in names or name in OPTIONS}
    of_input = _given({name: inputs.get(name) for name in (*names, *OPTIONS)})
    asked = []
    for one in instruction if several else [instruction]:
        question = dict(one) if isinstance(one, Mapping) else {"instruction": one}
        if unknown := question.keys() - names - {"instruction", "task", *OPTIONS}:
            raise ValueError(f"A question has {', '.join(sorted(map(str, unknown)))}, which no task asks for.")
        question = _given({"task": task} | question)
        if "task" not in question:  # a row of a dataset may have such columns for other reasons
            of_input = {name: value for name, value in of_input.items() if name in OPTIONS}
        asked.append(of_call | of_input | question)
    return asked, several


def _options_of_config(options: dict) -> dict:
    """Of the options of `generate` those that its configuration depends on."""
    return {name: value for name, value in options.items() if name not in NO_PART_OF_CONFIG}


def _is_cut(tokens: list[int], constraint, ends: list[int], config) -> bool:
    """Whether `max_new_tokens` decided where an answer ends, or a part of it."""
    if constraint is None:
        return not tokens or tokens[-1] not in ends
    return constraint.cuts(tokens, config.max_new_tokens)


def _given(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}


def _check_range(name: str, value, least, most):
    if value is not None and not (least <= value and (most is None or value <= most)):
        upper = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} is {value!r}; it must be at least {least}{upper}.")


def _as_dict(inputs) -> dict:
    if isinstance(inputs, Mapping) and ("audio" in inputs or not {"array", "bytes", "path"} & set(inputs)):
        return dict(inputs)
    return {"audio": inputs}


__all__ = ["SpeechInstructionPipeline"]

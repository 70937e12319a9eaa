"""`pipeline("speech-instruction")`: recordings and instructions in, answers out."""

from collections.abc import Callable, Mapping

from torch.utils.data import DataLoader
from transformers import BatchFeature, Pipeline, TextStreamer
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .processing_speechverse import flatten_audio


class CallbackStreamer(TextStreamer):
    """Hands finished pieces of the answer to a function, as they are generated."""

    def __init__(self, tokenizer, callback: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=False, skip_special_tokens=True)
        self.callback = callback

    def on_finalized_text(self, text: str, stream_end: bool = False):
        if text:
            self.callback(text)


class SpeechInstructionPipeline(Pipeline):
    """Answers instructions about recordings.

    ```python
    >>> ask = pipeline("speech-instruction", model="org/speechverse")
    >>> ask("call.wav", "What is the caller asking for?")
    {'text': 'To listen to jazz.', 'answer': 'To listen to jazz.'}
    >>> ask({"audio": "call.wav", "task": "er"})
    {'text': 'Angry.', 'answer': 'angry'}
    >>> ask({"audio": "call.wav", "task": ["asr", "er"]})
    {'text': 'ASR: stop it | Emotion: angry |', 'answer': {'asr': 'stop it', 'er': 'angry'}}
    ```

    An answer is a dict: `text` is what the model wrote; `answer` is that text read as the task's kind of answer, `None`
    if it could not be read so; `unread` lists the parts that could not be read, and is left out where there are none.
    With `num_return_sequences` above 1 every input gives a list of such dicts, best first.

    Inputs: one recording, or a dict with `audio` and either `instruction` or `task` (and `labels`, and what else the
    task asks for, such as `keyword`); a list, a dataset (of torch or of `datasets`) or a generator of either. A dataset
    or a generator is answered lazily: iterate over what comes back. A list as a dict's `audio` holds the recordings of
    one instruction, one for each `<audio>` in it.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = True

    def __call__(self, inputs, instruction: str | list[str] | None = None, **kwargs):
        """Answers.

        Args:
            inputs: see the class.
            instruction (`str` or `list[str]`, *optional*): for inputs that bring none; one for all, or one for each.
            task (`str` or `list[str]`, *optional*): likewise, a task of the model's bank, or several to be answered
                together.
            labels (`dict[str, str]` or `list[str]`, *optional*): likewise, classes in place of the task's own; for
                several tasks, a dict of those by task id. What else the tasks ask for can be given as well:
                `keyword="radio"`.
            sampling_rate (`int`, *optional*): rate of bare arrays, Hz.
            batch_size (`int`, *optional*, defaults to 1): how many inputs are answered at once.
            callback (`Callable[[str], None]`, *optional*): is handed the answer piece by piece; one input at a time.
            **kwargs: everything else goes to `generate`: `max_new_tokens`, `num_beams`, `do_sample`, ...

        Raises:
            KeyError: if the model's bank has no such task.
            ValueError: if an input has no recording or no instruction, or its task needs something that is not given.
        """
        if isinstance(instruction, (list, tuple)):
            if not isinstance(inputs, (list, tuple)):
                raise ValueError("A list of instructions needs a list of inputs, one for each.")
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
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, **kwargs)

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
        labels=None,
        sampling_rate=None,
        callback=None,
        generate_kwargs=None,
        **kwargs,
    ):
        asked = {name for known in self.processor.tasks for name in known.fields}
        values = {name: kwargs.pop(name) for name in asked & kwargs.keys()}
        given = {
            "instruction": instruction,
            "task": task,
            "labels": labels,
            "values": values or None,
            "sampling_rate": sampling_rate,
        }
        generate_kwargs = {**(generate_kwargs or {}), **kwargs}
        if callback is not None:
            generate_kwargs["streamer"] = CallbackStreamer(self.processor.tokenizer, callback)
        return {k: v for k, v in given.items() if v is not None}, generate_kwargs, {}

    def preprocess(self, inputs, instruction=None, task=None, labels=None, values=None, sampling_rate=None):
        inputs = _as_dict(inputs)
        audios = [] if inputs.get("audio") is None else flatten_audio(inputs["audio"])
        if not audios:
            raise ValueError(
                "The input has no recording: give a path, or a dict with 'audio'; "
                f"it has {', '.join(inputs) or 'nothing'}."
            )
        if inputs.get("instruction") is not None or inputs.get("task") is not None:
            instruction, task = inputs.get("instruction"), inputs.get("task")  # what comes with an input goes first
        if instruction is not None and not isinstance(instruction, str):
            raise ValueError(f"An input's instruction is {instruction!r}; it must be one piece of text.")
        if (instruction is None) == (task is None):
            raise ValueError("An input needs an instruction or a task, and not both.")
        if instruction is None:
            known = self.processor.tasks.find(task)
            brought = {name: inputs[name] for name in ("labels", *known.fields) if inputs.get(name) is not None}
            values = {"labels": labels, **(values or {}), **brought}
            labels, instruction = values["labels"], known.instruction(**values)
        elif labels is not None or values:
            raise ValueError(
                "labels, and what else a task asks for, need a task; an input has an instruction instead."
            )
        placeholder = self.processor.audio_token
        if max(1, instruction.count(placeholder)) != len(audios):
            raise ValueError(
                f"The instruction has {instruction.count(placeholder)} {placeholder} placeholders for {len(audios)} "
                "recordings."
            )
        rate = inputs.get("sampling_rate", sampling_rate)
        example = self.processor.encode(instruction, audios, sampling_rate=rate)
        return {"example": example, "reading": {"task": task, "labels": labels}}

    def _forward(self, model_inputs, **generate_kwargs):
        readings = model_inputs.pop("readings")
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs)
        sequences = self.model.generate(**model_inputs, **generate_kwargs)
        sequences = getattr(sequences, "sequences", sequences)  # of a `GenerateOutput`
        per_input = len(sequences) // len(readings)
        return {"sequences": sequences.reshape(len(readings), per_input, -1), "reading": readings}

    def postprocess(self, model_outputs):
        # In a batch the iterator hands over one row at a time, and a single input comes as a batch of one.
        sequences, reading = model_outputs["sequences"], model_outputs["reading"]
        sequences = sequences.reshape(-1, sequences.shape[-1])
        reading = reading[0] if isinstance(reading, list) else reading
        answers = []
        for text in self.processor.batch_decode(sequences, skip_special_tokens=True):
            answer, unread = self.processor.read(text, **reading)
            answers.append({"text": text.strip(), "answer": answer} | ({"unread": unread} if unread else {}))
        return answers[0] if len(answers) == 1 else answers

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
        batch: BatchFeature = self.processor.pad([item["example"] for item in items])
        return {**batch, "readings": [item["reading"] for item in items]}


def _as_dict(inputs) -> dict:
    if isinstance(inputs, Mapping) and ("audio" in inputs or not {"array", "bytes", "path"} & set(inputs)):
        return dict(inputs)
    return {"audio": inputs}


__all__ = ["SpeechInstructionPipeline"]

"""SpeechVerse in lmms-eval, a public harness that asks audio (and other) language models what their benchmarks ask.

    pip install speechverse lmms-eval
    lmms-eval --model speechverse --model_args pretrained=org/speechverse --tasks librispeech_test_clean --batch_size 16

The harness finds the model by this package's entry point `lmms_eval.models`. It brings its own tasks, prompts and metrics; a
task of one's own, on recordings of this machine, is in `example/`:

    lmms-eval --model speechverse --model_args pretrained=runs/mini --include_path evaluation/harness/example \\
        --tasks speechverse_example_asr --batch_size 16

Of a benchmark's prompts a model knows none: for its own prompts and constraints see evaluation/run.py.
"""

import json
import logging

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from tqdm.auto import tqdm
from transformers import pipeline

import speechverse  # noqa: F401  registers the pipeline


logger = logging.getLogger(__name__)

PASSED_ON = ("max_new_tokens", "num_beams", "top_p", "top_k", "repetition_penalty", "length_penalty")
UNDERSTOOD = (*PASSED_ON, "until", "temperature", "do_sample")
SPOKEN_INSTRUCTION = "Do what the speaker asks for."


class SpeechVerse(lmms):
    """A checkpoint as the harness asks it: recordings and words in, words out.

    Args:
        pretrained (`str`): checkpoint folder or Hub id.
        batch_size (`int`, *optional*, defaults to 1): requests that are answered at once.
        device (`str`, *optional*): by default the process's own, as accelerate hands it out.
        dtype (`str`, *optional*, defaults to `"auto"`): of the weights.
        chunk_length_s (`float`, *optional*): answers recordings of any length in pieces, see [`SpeechInstructionPipeline`].
        spoken_instruction (`str`, *optional*): what is asked where a benchmark speaks its instruction and writes none.
        trust_remote_code (`bool`, *optional*, defaults to `False`): take the code that a checkpoint brings.
        max_batch_size: the harness gives it; it is of no use here.
    """

    is_simple = True  # requests come as a text and a function that gives the recordings

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        chunk_length_s: float | None = None,
        spoken_instruction: str = SPOKEN_INSTRUCTION,
        trust_remote_code: bool = False,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ValueError(f"batch_size is {batch_size!r}; SpeechVerse takes a number.")
        accelerator = Accelerator()
        self.accelerator = accelerator
        self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device if device is None else torch.device(device)
        self.batch_size = int(batch_size)
        self.spoken_instruction = spoken_instruction
        self.ask = pipeline(
            "speech-instruction",
            model=str(pretrained),
            device=self.device,
            dtype=dtype,
            trust_remote_code=trust_remote_code or None,
            chunk_length_s=chunk_length_s,
        )

    def generate_until(self, requests) -> list[str]:
        """What is written for each request, in their order, up to the strings that end it.

        Args:
            requests (`list[Instance]`): `args` are the text, options of generation, the function that gives a document's
                recordings, the document's place in its split, and the names of task and split.

        Raises:
            ValueError: if a request has no recording.
        """
        groups = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        texts = [None] * len(requests)
        with tqdm(total=len(requests), unit="request", disable=self.rank != 0) as progress:
            for places in groups.values():
                options = dict(requests[places[0]].args[1])
                inputs = (self._input(*requests[place].args) for place in places)
                answers = self.ask(inputs, batch_size=self.batch_size, num_workers=0, **generation_options(options))
                for place, answer in zip(places, answers, strict=True):
                    texts[place] = cut_at(answer["text"], options.get("until"))
                    self.cache_hook.add_partial("generate_until", requests[place].args[:2], texts[place])
                    progress.update()
        return texts

    def _input(self, text: str, options: dict, recordings_of, document: int, task: str, split: str) -> dict:
        recordings = recordings_of(self.task_dict[task][split][document]) if recordings_of else None
        if not recordings:
            raise ValueError(
                f"Document {document} of {task}, {split}, has no recording: SpeechVerse answers about audio."
            )
        token = self.ask.processor.audio_token
        instruction = text.strip() or self.spoken_instruction
        if len(recordings) > 1 and token not in instruction:
            instruction = token * len(recordings) + instruction
        return {"audio": list(recordings), "instruction": instruction}

    def loglikelihood(self, requests):
        raise NotImplementedError(
            "SpeechVerse writes answers in lmms-eval; it does not give likelihoods of others there."
        )

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("SpeechVerse answers one question at a time: it holds no conversations.")


def generation_options(options: dict) -> dict:
    """A task's options of generation, as `generate` takes them; what it does not know, such as sizes of images, is named."""
    unknown = sorted(options.keys() - set(UNDERSTOOD))
    if unknown:
        logger.warning(f"SpeechVerse leaves out the options of generation {', '.join(unknown)}.")
    temperature = options.get("temperature") or 0
    taken = {name: options[name] for name in PASSED_ON if options.get(name) is not None}
    if temperature > 0 and options.get("do_sample", True):
        return taken | {"do_sample": True, "temperature": temperature}
    return {name: value for name, value in taken.items() if name not in ("top_p", "top_k")} | {"do_sample": False}


def cut_at(text: str, until: str | list[str] | None) -> str:
    """A text up to the first of some strings."""
    for end in [until] if isinstance(until, str) else until or []:
        text = text.split(end)[0] if end else text
    return text


def manifest():
    """What the harness's registry of models is told."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("speechverse", simple_class_path=f"{__name__}.{SpeechVerse.__name__}")

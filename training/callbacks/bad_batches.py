"""Micro-batches whose loss is not finite: which records were in them."""

import json
import logging
import math
from pathlib import Path

import torch
from accelerate.utils import gather_object

from ..data.recordings import audio_name
from ..data.sample import Sample


logger = logging.getLogger(__name__)

FILE_NAME = "bad_batches.jsonl"
MOST_NAMED = 8


def describe_samples(samples: list[Sample]) -> str:
    """Names records in one line: corpus, key and recording of each; of more than eight, how many more there are."""
    return _describe(list(map(_record, samples)))


def _record(sample: Sample) -> dict:
    return {
        "corpus": sample.corpus,
        "key": sample.key,
        "audio": audio_name(sample.audio),
        "tasks": list(sample.tasks),
    }


def _describe(records: list[dict]) -> str:
    named = [
        " ".join(filter(None, (record["corpus"], record["key"], record["audio"]))) for record in records[:MOST_NAMED]
    ]
    more = len(records) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


class BadBatches:
    """Looks at the losses of an update's micro-batches, and names the records behind those that are not finite.

    They are logged, and listed in `bad_batches.jsonl` in the output folder: a line a micro-batch with its `step`, `rank`,
    `loss` and `records`. A step that a resumed run makes again is listed again.
    """

    def __init__(self):
        self._noted: list[tuple[torch.Tensor, list[Sample]]] = []

    def note(self, loss: torch.Tensor, samples: list[Sample]) -> None:
        """Keeps a micro-batch until the update: to look at its loss now would make the processor wait for a GPU."""
        self._noted.append((loss.detach(), samples))

    def report(self, args, step: int, together: bool) -> int:
        """Reports the bad ones of an update.

        Args:
            args ([`~transformers.TrainingArguments`]): the run's.
            step (`int`): the update's.
            together (`bool`): rank 0 reports those of all ranks, and all call this; `False`: each rank its own.

        Returns:
            `int`: how many were reported, of all ranks if `together`.
        """
        noted, self._noted = self._noted, []
        losses = torch.stack([loss for loss, _ in noted]).tolist() if noted else []
        bad = [
            {"step": step, "rank": args.process_index, "loss": str(loss), "records": list(map(_record, samples))}
            for loss, (_, samples) in zip(losses, noted, strict=True)
            if not math.isfinite(loss)
        ]
        if together:
            bad = gather_object(bad)
        if bad and (args.process_index == 0 or not together):
            for batch in bad:
                logger.warning(f"Step {step}: the loss is {batch['loss']} for {_describe(batch['records'])}.")
            with (Path(args.output_dir) / FILE_NAME).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(batch, ensure_ascii=False) + "\n" for batch in bad)
        return len(bad)

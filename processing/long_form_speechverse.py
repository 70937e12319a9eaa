"""Answers about recordings of any length: asked about chunk by chunk, and put together."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import soundfile
from transformers.utils import logging

from .long_audio_speechverse import AudioChunk, cut_at_silences, join_transcripts, overlapping_windows, stream_audio
from .tasks_speechverse import JointTask


# A silence of a second ends what is said in one go; chunks of that give a model what it hears in training. See
# `cut_at_silences`.
SKIP_SECONDS, PADDING_SECONDS = 1.0, 0.5
SHORTEST_CHUNK = 1.0  # s, of what is cut at silences


def answer_long(
    ask: Callable[[Iterable[dict]], Iterable[dict]],
    processor,
    inputs: Mapping,
    task: str | list[str] | None,
    chunk_length_s: float,
    stride_length_s: float | None = None,
) -> dict:
    """Answers one question about a long recording, in bounded memory.

    Args:
        ask (`Callable`): answers a stream of inputs in their order.
        processor ([`SpeechVerseProcessor`]): the model's.
        inputs (`Mapping`): `audio`, one recording in any form that [`~long_audio_speechverse.stream_audio`] takes,
            `sampling_rate` of a bare array, and what is asked about every chunk.
        task (`str` or `list[str]`, *optional*): the task, or tasks, that this is.
        chunk_length_s (`float`): longest chunk, in seconds.
        stride_length_s (`float`, *optional*): context on each side of a chunk, in seconds; chunks then overlap. Without it
            the recording is cut at silences.

    Returns:
        `text`, the chunks' texts joined; `answer`, of free text that text, of other answers their list, of several tasks
        a dict of such by task id; `segments`, every chunk's `start` and `end` in seconds and its answer; and where
        silences were left out, `skipped`, their starts and ends.

    Raises:
        ImportError: if silences are looked for and `silero-vad` is not installed.
        ValueError: if the chunks do not suit the encoder, or the recording cannot be read.
    """
    least = SHORTEST_CHUNK if stride_length_s is None else processor.min_audio_seconds
    longest = processor.max_audio_seconds
    if not least <= chunk_length_s <= (longest or float("inf")):
        upper = "" if longest is None else f" and at most {longest:g}, which is what this encoder takes"
        raise ValueError(f"chunk_length_s is {chunk_length_s}; it must be at least {least}{upper}.")
    if stride_length_s is not None and not 0 <= 2 * stride_length_s < chunk_length_s:
        raise ValueError(
            f"stride_length_s is {stride_length_s}; it must be at least 0 and less than half of chunk_length_s, "
            f"{chunk_length_s}."
        )
    rate = processor.feature_extractor.sampling_rate
    recording, asked = inputs["audio"], {k: v for k, v in inputs.items() if k not in ("audio", "sampling_rate")}
    blocks = stream_audio(recording, rate, inputs.get("sampling_rate"))
    chunks = cut_up(blocks, rate, chunk_length_s, stride_length_s)
    times = []

    def pieces() -> Iterator[dict]:
        for chunk in _watched(chunks, _seconds(recording)):
            times.append((chunk.start, chunk.end))
            missing = math.ceil(processor.min_audio_seconds * rate) - len(chunk.array)  # of a recording's short rest
            array = np.pad(chunk.array, (0, max(missing, 0)))
            yield {**asked, "audio": {"array": array, "sampling_rate": rate}}

    answers = list(ask(pieces()))
    overlap = None if stride_length_s is None else 2 * stride_length_s / chunk_length_s
    known = None if task is None else processor.tasks.find(task)
    text, answer = _join(known, answers, overlap)
    segments = [{"start": start, "end": end, **one} for (start, end), one in zip(times, answers, strict=True)]
    found = {"text": text, "answer": answer, "segments": segments}
    if skipped := getattr(chunks, "skipped", None):
        found["skipped"] = skipped
    return found | ({"truncated": True} if any(one.get("truncated") for one in answers) else {})


def cut_up(
    blocks: Iterable[np.ndarray], rate: int, chunk_length_s: float, stride_length_s: float | None = None
) -> Iterator[AudioChunk]:
    """The chunks that a long recording is asked about in, see [`answer_long`]; of blocks `(samples,)` at `rate` Hz."""
    if stride_length_s is not None:
        return overlapping_windows(blocks, rate, chunk_length_s, stride_length_s)
    skip = min(SKIP_SECONDS, chunk_length_s / 2)
    return cut_at_silences(
        blocks, rate, chunk_length_s, skip_seconds=skip, padding_seconds=min(PADDING_SECONDS, skip / 2)
    )


def _join(known, answers: list[dict], overlap: float | None) -> tuple[str, object]:
    """The text and the answer of the whole."""

    def joined(texts: Iterable[str | None]) -> str:
        texts = [text.strip() for text in texts if text and text.strip()]
        return " ".join(texts) if overlap is None else join_transcripts(texts, overlap)

    if known is None or known.answer_type == "text":
        text = joined(one["text"] for one in answers)
        return text, text
    text = "\n".join(one["text"] for one in answers)
    if not isinstance(known, JointTask):
        return text, [one["answer"] for one in answers]
    answer = {}
    for task in known.tasks:
        found = [(one["answer"] or {}).get(task.id) for one in answers]
        answer[task.id] = joined(found) if task.answer_type == "text" else found
    return text, answer


def _watched(chunks: Iterable[AudioChunk], seconds: float | None) -> Iterator[AudioChunk]:
    """Hands chunks on, with a progress bar in seconds of the recording."""
    with logging.tqdm(total=seconds and round(seconds), unit="s", desc="Listening") as bar:
        for chunk in chunks:
            yield chunk
            bar.update(round(chunk.end) - bar.n)


def _seconds(recording) -> float | None:
    """How long a file is, where that can be known without reading it."""
    file = recording.get("path") or recording.get("bytes") if isinstance(recording, Mapping) else recording
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    elif not isinstance(file, (str, os.PathLike)) or not os.path.isfile(file):
        return None
    return soundfile.info(file).duration

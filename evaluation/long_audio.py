"""Says what cutting a long recording costs: transcribes clips one by one, and the recording that they make together.

    python evaluation/long_audio.py --manifest spoken/manifest.jsonl --model runs/mini --minutes 30
    python evaluation/long_audio.py --manifest spoken/manifest.jsonl --asr-model openai/whisper-base --minutes 5

The clips (the field `audio` of each line, relative to the manifest; all should hold speech) are joined with pauses, in random order, and written
block by block to a FLAC file. That recording is read back as a stream and transcribed in two ways: in chunks that are cut
where nobody speaks, and in windows that overlap. For each it prints the word error rate (WER) between the joined transcript
and those of the single clips, which are no truth but what the same model hears without any cut, and the process's peak
memory after one, two and three thirds of the recording, which does not grow with its length. Where every clip has the
field `text`, what was said in it, the error rates against that are given as well: a recogniser hears a word differently
with other words around it, and not always worse. How unsure it is of itself is told by what a quarter of a second of silence
around the single clips changes. Words are compared as the metric `wer` compares them.
"""

import argparse
import itertools
import json
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

from speechverse.evaluation.corpus_metric import CorpusMetric, load_metric
from speechverse.processing.audio_speechverse import load_audio
from speechverse.processing.long_audio_speechverse import AudioChunk, join_transcripts, stream_audio
from speechverse.processing.long_form_speechverse import cut_up


RATE = 16_000  # Hz
SILENCE_AROUND = 0.25  # seconds
INSTRUCTION = "Write down what is said."

Transcribe = Callable[[list[np.ndarray]], list[str]]


def speechverse_transcriber(model: str, max_new_tokens: int) -> Transcribe:
    """Transcribes by a SpeechVerse checkpoint."""
    ask = pipeline("speech-instruction", model=model)

    def transcribe(waves: list[np.ndarray]) -> list[str]:
        inputs = [{"array": wave, "sampling_rate": RATE} for wave in waves]
        answers = ask(inputs, INSTRUCTION, batch_size=len(waves), max_new_tokens=max_new_tokens, do_sample=False)
        return [answer["text"] for answer in answers]

    return transcribe


def asr_transcriber(model: str) -> Transcribe:
    """Transcribes by any speech recogniser of transformers that reads at most 30 s, such as Whisper, greedily."""
    processor = AutoProcessor.from_pretrained(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recogniser = AutoModelForSpeechSeq2Seq.from_pretrained(model).eval().to(device)

    @torch.inference_mode()
    def transcribe(waves: list[np.ndarray]) -> list[str]:
        inputs = processor(waves, sampling_rate=RATE, return_tensors="pt").to(device)
        ids = recogniser.generate(**inputs, do_sample=False)
        return processor.batch_decode(ids, skip_special_tokens=True)

    return transcribe


@dataclass
class Clip:
    """A short recording, and what is said in it where that is known."""

    audio: Path
    text: str | None


def read_clips(manifests: list[Path]) -> list[Clip]:
    clips = []
    for manifest in manifests:
        for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                clips.append(Clip(manifest.parent / row["audio"], row.get("text")))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{manifest}, line {number}: give a JSON object with the field audio.") from error
    return clips


def write_recording(
    file: Path, clips: list[Clip], minutes: float, pauses: tuple[float, float], random_state: random.Random
) -> list[Clip]:
    """Joins clips, each once, until they last `minutes`, with pauses of a random length in seconds between them.

    Returns:
        the clips that are in it, in their order.
    """
    used, samples = [], 0  # a FLAC file that is written does not tell its length
    with soundfile.SoundFile(file, "w", RATE, 1, format="FLAC") as recording:
        for clip in random_state.sample(clips, len(clips)):
            if samples >= minutes * 60 * RATE:
                break
            pause = np.zeros(round(random_state.uniform(*pauses) * RATE), np.float32)
            for wave in (load_audio(clip.audio, RATE), pause):
                recording.write(wave)
                samples += len(wave)
            used.append(clip)
    return used


def transcribe_all(transcribe: Transcribe, waves: Iterable[np.ndarray], batch_size: int) -> Iterator[str]:
    waves = iter(waves)
    while batch := list(itertools.islice(waves, batch_size)):
        yield from transcribe(batch)


def watched(chunks: Iterable[AudioChunk], seconds: float, memory: list[int]) -> Iterator[np.ndarray]:
    """Hands chunks on, and notes the peak memory in MiB after each third of the recording."""
    with tqdm(total=round(seconds), unit="s") as bar:
        for chunk in chunks:
            yield chunk.array
            if chunk.end >= seconds * (len(memory) + 1) / 3:
                memory.append(peak_memory())
            bar.update(round(chunk.end) - bar.n)
    memory += [peak_memory()] * (3 - len(memory))


def peak_memory() -> int:
    """Of this process so far, in MiB."""
    units = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units // 2**20


def errors(wer: CorpusMetric, text: str, truth: str) -> list[int]:
    """Words that are substituted, deleted and inserted in a text, and the number of words in the truth."""
    return [int(count) for count in wer.statistics([text], [truth])[0]]


def error_rate(wer: CorpusMetric, text: str, truth: str) -> float:
    return float(wer.value(wer.statistics([text], [truth])[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, nargs="+", type=Path, help="JSON lines with the field audio")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="SpeechVerse checkpoint: a folder or Hub id")
    model.add_argument("--asr-model", help="speech recogniser of transformers: a folder or Hub id")
    parser.add_argument("--minutes", type=float, default=30, help="length of the recording")
    parser.add_argument(
        "--pauses", nargs=2, type=float, default=(0.5, 3.0), help="shortest and longest pause, seconds"
    )
    parser.add_argument("--chunk-seconds", type=float, default=29.0, help="longest chunk, and length of a window")
    parser.add_argument("--stride-seconds", type=float, default=5.0, help="context on each side of a window")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest transcript of a chunk by --model")
    parser.add_argument("--language", default="en", help="code of what is spoken, by which words are compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder for the recording and the transcripts (default: kept nowhere)"
    )
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        try:
            wer = load_metric("wer", language=options.language)
            if options.model:
                transcribe = speechverse_transcriber(options.model, options.max_new_tokens)
            else:
                transcribe = asr_transcriber(options.asr_model)
            clips = write_recording(
                out / "recording.flac",
                read_clips(options.manifest),
                options.minutes,
                options.pauses,
                random.Random(options.seed),
            )
            compare(out, clips, transcribe, wer, options)
        except (ImportError, OSError, ValueError) as error:
            raise SystemExit(str(error)) from error


def compare(
    out: Path, clips: list[Clip], transcribe: Transcribe, wer: CorpusMetric, options: argparse.Namespace
) -> None:
    recording = out / "recording.flac"
    seconds = soundfile.info(recording).duration
    cutters = {
        "cut at silences": lambda blocks: cut_up(blocks, RATE, options.chunk_seconds),
        "overlapping windows": lambda blocks: cut_up(blocks, RATE, options.chunk_seconds, options.stride_seconds),
    }
    # The long recording comes first: peak memory never falls, and would show the single clips'.
    report = {"clips": len(clips), "minutes": seconds / 60, "ways": {}}
    transcripts = {}
    for way, cut in cutters.items():
        chunks, memory = cut(stream_audio(recording, RATE)), []
        texts = list(transcribe_all(transcribe, watched(chunks, seconds, memory), options.batch_size))
        overlap = 2 * options.stride_seconds / options.chunk_seconds
        transcripts[way] = join_transcripts(texts, overlap) if way == "overlapping windows" else " ".join(texts)
        report["ways"][way] = {"chunks": len(texts), "memory": memory, "skipped": getattr(chunks, "skipped", [])}
        (out / f"{way.replace(' ', '_')}.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
    waves = tqdm((load_audio(clip.audio, RATE) for clip in clips), total=len(clips), unit="clip")
    alone = list(transcribe_all(transcribe, waves, options.batch_size))
    (out / "clips.json").write_text(
        json.dumps([[str(clip.audio), text] for clip, text in zip(clips, alone, strict=True)], indent=1) + "\n",
    )
    # How much of the difference is the recogniser's own: what a little silence around the same clips does to it.
    silence = np.zeros(round(SILENCE_AROUND * RATE), np.float32)
    waves = (np.concatenate([silence, load_audio(clip.audio, RATE), silence]) for clip in clips)
    padded = list(transcribe_all(transcribe, tqdm(waves, total=len(clips), unit="clip"), options.batch_size))
    heard = " ".join(alone)
    truth = " ".join(clip.text for clip in clips) if all(clip.text for clip in clips) else None
    *_, words = errors(wer, heard, heard)
    if not words:
        raise ValueError("The model heard no word in any single clip: there is nothing to compare with.")
    report["signature"] = wer.signature
    print(f"{len(clips)} clips, {seconds / 60:.1f} minutes, {words} words in the single clips")
    if truth:
        report["wer_of_clips_to_text"] = error_rate(wer, heard, truth)
        print(f"single clips: WER to their texts {report['wer_of_clips_to_text']:.2%}")
    report["wer_with_silence_around"] = error_rate(wer, " ".join(padded), heard)
    print(f"single clips with {SILENCE_AROUND} s of silence around: WER {report['wer_with_silence_around']:.2%}")
    for way, row in report["ways"].items():
        substituted, deleted, inserted, _ = errors(wer, transcripts[way], heard)
        row |= {"wer": error_rate(wer, transcripts[way], heard), "errors": [substituted, deleted, inserted]}
        to_text = ""
        if truth:
            row["wer_to_text"] = error_rate(wer, transcripts[way], truth)
            to_text = f"   to the texts {row['wer_to_text']:6.2%}"
        left_out = sum(end - start for start, end in row["skipped"])
        print(
            f"{way:20} {row['chunks']:5} chunks   WER {row['wer']:6.2%} ({substituted} other, {deleted} "
            f"missing, {inserted} added){to_text}   left out {left_out:.0f} s   "
            f"peak memory {' '.join(map(str, row['memory']))} MiB"
        )
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

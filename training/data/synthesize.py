"""Speak sentences offline with a text-to-speech engine from PyPI, on CPU, without a network.

```bash
pip install -e ".[tts]"
python training/data/synthesize.py sentences.jsonl --out data/spoken
python training/data/synthesize.py sentences.jsonl --out data/spoken --voices en-US en-GB --speed 0.8 1.3 --seed 1
python training/data/synthesize.py sentences.jsonl --out data/heart --engine hibari
```

`sentences.jsonl` holds one JSON object a line with at least `text`. The optional `voice`, `speed` and `pitch` fix
these for their line; otherwise they are drawn uniformly, as a function of the seed and the line number alone. Every
other field (`task`, `target`, `split` ...) is carried through unchanged:

```json
{"text": "Set an alarm for seven.", "task": "slu", "target": "alarm_set"}
{"text": "Stell einen Wecker.", "voice": "de-DE", "speed": 1.0, "language": "de"}
```

The output folder then holds:

- `audio/000000.flac`, ...: 16 kHz mono, named by the position of the line, from 0;
- `manifest.jsonl`: one JSON object a spoken sentence, in input order: `audio` (relative to the manifest), `duration`
  (s), `text`, `engine` (`name==version`), `voice`, `speed`, `pitch` and the carried fields;
- `skipped.jsonl`: the sentences that came out silent (text in a script that the voice cannot read, say), if any;
- `.chunks/`: what is finished, so that the same command, run again after an interruption, speaks only the rest.

The audio is a function of the sentences, the engine, its options and the seed, whatever the number of workers. Lines
are spoken in chunks of fixed size, each by a process of its own.
"""

import argparse
import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm


logger = logging.getLogger(__name__)

SAMPLING_RATE = 16_000  # Hz, of the files written
CHUNK_SIZE = 64  # lines spoken by one process; an interruption loses at most one chunk per worker
SILENCE = 0.01  # peak amplitude below which nothing was said (nanotts: 0.003 for silence, 0.4 and more for speech)
DRAWN_FIELDS = ("voice", "speed", "pitch")
WRITTEN_FIELDS = ("audio", "duration", "engine")
# nanotts reads memory that it never cleared: on a recycled block its samples change with the calls before, and at
# times from run to run. A fixed threshold (bytes) makes glibc serve such a block from fresh pages, which are zero.
CHUNK_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "131072"}


class Engine:
    """
    A text-to-speech engine. A new one is a subclass and a row of `ENGINES`.

    Attributes:
        package (`str`): Name of the package on PyPI.
        voices (`tuple[str, ...]`): Every voice that speaks without a download.
        default_voices (`tuple[str, ...]`): The voices drawn from if none are asked for.
        sampling_rate (`int`): Rate of what `speak` returns, in Hz.
        speed_limits (`tuple[float, float]`): Slowest and fastest tempo, 1 being the natural one.
        pitch_limits (`tuple[float, float]`): Lowest and highest pitch factor, 1 being the natural one.
    """

    package: str
    voices: tuple[str, ...]
    default_voices: tuple[str, ...]
    sampling_rate: int
    speed_limits: tuple[float, float]
    pitch_limits: tuple[float, float]

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> np.ndarray:
        """Returns `float32` mono audio of shape `(num_samples,)` in [-1, 1], empty if there is nothing to say."""
        raise NotImplementedError


class NanoTTS(Engine):
    """SVOX Pico: six languages, one voice each."""

    package = "py-nanotts"
    voices = ("en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT")
    default_voices = ("en-US", "en-GB")
    sampling_rate = 16_000
    speed_limits = (0.2, 5.0)
    pitch_limits = (0.5, 2.0)

    def __init__(self):
        from py_nanotts import NanoTTS as Pico

        self.pico = Pico()

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> np.ndarray:
        text = text.replace("<", "<\N{ZERO WIDTH SPACE}")  # else Pico obeys tags such as <ignore>, this speaks them
        pcm = self.pico.speak(text, voice=voice, speed=speed, pitch=pitch, volume=0.5)  # the default volume clips
        return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


class Hibari(Engine):
    """A small neural English voice. It has no control of pitch, and its other voices need a download."""

    package = "hibari-tts"
    voices = default_voices = ("heart",)
    sampling_rate = 24_000
    speed_limits = (0.5, 2.0)
    pitch_limits = (1.0, 1.0)

    def __init__(self):
        from hibari import Hibari as Model

        self.model = Model(threads=1)

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> np.ndarray:
        if not any(symbol.isalpha() for phonemes in self.model.phonemize(text) for symbol in phonemes):
            return np.zeros(0, np.float32)  # punctuation alone comes out as a breath
        return self.model(text, speed=speed, seed=0)


ENGINES: dict[str, type[Engine]] = {"nanotts": NanoTTS, "hibari": Hibari}


def read_sentences(path: str | Path) -> list[dict]:
    """Reads a JSONL file of one object a line; an error names the file and the line."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give a JSONL file with one object a line, each with a `text` field.")
    sentences = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            sentences.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}): write one object a line.") from error
    return sentences


def synthesize(
    sentences: str | Path | Iterable[dict],
    output_dir: str | Path,
    engine: str = "nanotts",
    voices: Sequence[str] | None = None,
    speed: tuple[float, float] = (0.9, 1.2),
    pitch: tuple[float, float] | None = None,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """
    Speaks sentences into 16 kHz mono FLAC files and lists them in a manifest. Run again after an interruption, it
    speaks only what is missing.

    Args:
        sentences (`str`, `Path` or `list[dict]`):
            A JSONL file or its objects, each with `text` and optionally `voice`, `speed` and `pitch`; the other
            fields are carried through.
        output_dir (`str` or `Path`):
            Folder of the audio and the manifest, created if absent.
        engine (`str`, *optional*, defaults to `"nanotts"`):
            A key of `ENGINES`.
        voices (`list[str]`, *optional*):
            Voices to draw from; defaults to the engine's `default_voices`, which speak English.
        speed (`tuple[float, float]`, *optional*, defaults to `(0.9, 1.2)`):
            Range of the tempo factor to draw from; 2 is twice as fast.
        pitch (`tuple[float, float]`, *optional*):
            Range of the pitch factor to draw from; 2 is an octave higher. Defaults to `(0.85, 1.2)`, or to 1 for an
            engine without control of pitch.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.
        num_workers (`int`, *optional*):
            Processes at a time; defaults to one per available core. It does not change the output.

    Returns:
        `Path`: The manifest, `manifest.jsonl` in `output_dir`.
    """
    engine_version = f"{engine}=={_installed_version(engine)}"
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers < 1:
        raise ValueError(f"`num_workers` is {num_workers}: give 1 or more.")

    if isinstance(sentences, (str, Path)):
        source, sentences = str(sentences), read_sentences(sentences)
    else:
        source, sentences = "sentences", list(sentences)
    calls = _plan_calls(sentences, ENGINES[engine], voices, speed, pitch, seed, source)

    output_dir = Path(output_dir)
    (output_dir / "audio").mkdir(parents=True, exist_ok=True)
    (output_dir / ".chunks").mkdir(exist_ok=True)
    chunks = [_Chunk(output_dir, engine_version, calls[i : i + CHUNK_SIZE]) for i in range(0, len(calls), CHUNK_SIZE)]
    _speak_missing([chunk for chunk in chunks if chunk.durations() is None], source, len(calls), num_workers)

    spoken, skipped = [], []
    durations = [duration for chunk in chunks for duration in chunk.durations()]
    for sentence, call, duration in zip(sentences, calls, durations, strict=True):
        how = {"text": call["text"], "engine": engine_version} | {key: call[key] for key in DRAWN_FIELDS}
        if duration is None:
            skipped.append({"index": call["index"], "reason": "silent"} | how)
        else:
            audio = _audio_path(output_dir, call["index"]).relative_to(output_dir).as_posix()
            spoken.append({"audio": audio, "duration": duration} | how | sentence)
    return _write_manifest(output_dir, spoken, skipped)


def _installed_version(engine: str) -> str:
    if engine not in ENGINES:
        raise ValueError(f"`engine` is {engine!r}: choose one of {', '.join(ENGINES)}.")
    package = ENGINES[engine].package
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ImportError(f"The engine `{engine}` is not installed: run `pip install {package}`.") from None


def _plan_calls(
    sentences: list[dict],
    engine: type[Engine],
    voices: Sequence[str] | None,
    speed: tuple[float, float],
    pitch: tuple[float, float] | None,
    seed: int,
    source: str,
) -> list[dict]:
    """What to ask of the engine for each sentence: `index`, `text`, `voice`, `speed` and `pitch`."""
    voices = tuple(voices or engine.default_voices)
    pitch = pitch or tuple(float(np.clip(bound, *engine.pitch_limits)) for bound in (0.85, 1.2))
    for voice in voices:
        _check_voice(voice, engine, "`voices`")
    for name, bounds, limits in (("speed", speed, engine.speed_limits), ("pitch", pitch, engine.pitch_limits)):
        for bound in bounds:
            _check_factor(bound, limits, engine, f"`{name}`")
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"`{name}` is {list(bounds)}: give the lowest and the highest factor, in this order.")
    if seed < 0:
        raise ValueError(f"`seed` is {seed}: give 0 or more.")
    if not sentences:
        raise ValueError(f"{source} holds no sentences: give at least one object with a `text` field.")

    calls = []
    for index, sentence in enumerate(sentences):
        where = f"{source}, line {index + 1}"
        _check_sentence(sentence, where)
        draw = np.random.default_rng([seed, index])
        drawn = {
            "voice": voices[draw.integers(len(voices))],
            "speed": round(draw.uniform(*speed), 4),
            "pitch": round(draw.uniform(*pitch), 4),
        }
        call = {"index": index, "text": sentence["text"]} | {key: sentence.get(key, drawn[key]) for key in drawn}
        _check_voice(call["voice"], engine, f"{where}, field `voice`")
        _check_factor(call["speed"], engine.speed_limits, engine, f"{where}, field `speed`")
        _check_factor(call["pitch"], engine.pitch_limits, engine, f"{where}, field `pitch`")
        calls.append(call)
    return calls


def _check_sentence(sentence: dict, where: str) -> None:
    if not isinstance(sentence, dict):
        raise ValueError(f"{where} is a {type(sentence).__name__}: give an object with a `text` field.")
    if "text" not in sentence:
        raise ValueError(f"{where} has no field `text`: add the sentence to speak.")
    text = sentence["text"]
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"{where}, field `text` is {text!r}: give a string that is not blank and has no NUL.")
    for field in WRITTEN_FIELDS:
        if field in sentence:
            raise ValueError(f"{where}, field `{field}` would be overwritten in the manifest: rename or remove it.")
    try:
        _to_line(sentence)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} cannot be written as JSON ({error}): keep to plain JSON values.") from error


def _check_voice(voice: str, engine: type[Engine], where: str) -> None:
    if voice not in engine.voices:
        raise ValueError(f"{where}: {engine.package} has no voice {voice!r}, choose from {', '.join(engine.voices)}.")


def _check_factor(value: float, limits: tuple[float, float], engine: type[Engine], where: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not limits[0] <= value <= limits[1]:
        raise ValueError(f"{where} is {value!r}: {engine.package} takes a number from {limits[0]} to {limits[1]}.")


class _Chunk:
    """Consecutive lines that one process speaks. Its record is written last, and at once, and so marks it finished."""

    def __init__(self, output_dir: Path, engine_version: str, calls: list[dict]):
        self.output_dir, self.engine_version, self.calls = output_dir, engine_version, calls
        self.record = output_dir / ".chunks" / f"{calls[0]['index']:06d}.json"
        self.digest = hashlib.sha256(json.dumps([engine_version, calls]).encode()).hexdigest()

    def durations(self) -> list[float | None] | None:
        """Seconds of each line, `None` for a silent one; `None` altogether if the chunk is still to be spoken."""
        if not self.record.is_file():
            return None
        record = json.loads(self.record.read_text())
        lines = zip(self.calls, record["durations"], strict=False)
        spoken = [_audio_path(self.output_dir, call["index"]) for call, duration in lines if duration is not None]
        done = record["digest"] == self.digest and all(path.is_file() for path in spoken)
        return record["durations"] if done else None

    def run(self) -> None:
        """Speaks in a fresh interpreter that loads this file alone, not the caller's modules: it starts fast."""
        job = [str(self.output_dir), self.engine_version, self.calls]
        command, environment = [sys.executable, __file__, "--chunk"], os.environ | CHUNK_ENVIRONMENT
        process = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, env=environment)
        if process.returncode:
            lines = process.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise RuntimeError(f"exit code {process.returncode}, {lines[-1]}")

    def speak(self) -> None:
        """What the fresh interpreter does."""
        self.record.unlink(missing_ok=True)
        engine = ENGINES[self.engine_version.partition("==")[0]]()
        durations = []
        for call in self.calls:
            try:
                wave = engine.speak(call["text"], call["voice"], call["speed"], call["pitch"])
            except Exception as error:
                raise RuntimeError(f"line {call['index'] + 1}: {error!r}") from error
            path = _audio_path(self.output_dir, call["index"])
            if not wave.size or np.abs(wave).max() < SILENCE:
                path.unlink(missing_ok=True)
                durations.append(None)
                continue
            if engine.sampling_rate != SAMPLING_RATE:
                wave = soxr.resample(wave, engine.sampling_rate, SAMPLING_RATE)
            soundfile.write(path, wave, SAMPLING_RATE)
            durations.append(len(wave) / SAMPLING_RATE)
        _write(self.record, json.dumps({"digest": self.digest, "durations": durations}))


def _speak_missing(chunks: list[_Chunk], source: str, num_sentences: int, num_workers: int) -> None:
    """Speaks the chunks, `num_workers` at a time; if one fails, the finished ones stay."""
    if not chunks:
        return
    (chunks[0].output_dir / "manifest.jsonl").unlink(missing_ok=True)  # of an earlier run: its audio changes now
    missing = sum(len(chunk.calls) for chunk in chunks)
    progress = tqdm(total=num_sentences, initial=num_sentences - missing, unit="sentence", desc="Speaking")
    with progress, ThreadPoolExecutor(num_workers) as pool:
        futures = {pool.submit(chunk.run): chunk for chunk in chunks}
        try:
            for future in as_completed(futures):
                calls = futures[future].calls
                try:
                    future.result()
                except RuntimeError as error:
                    where = f"{source}, lines {calls[0]['index'] + 1} to {calls[-1]['index'] + 1}"
                    raise RuntimeError(f"{where} could not be spoken ({error}): run again to resume.") from None
                progress.update(len(calls))
        except BaseException:  # an interrupt too: what runs may finish, what waits may not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_manifest(output_dir: Path, spoken: list[dict], skipped: list[dict]) -> Path:
    manifest, skipped_path = output_dir / "manifest.jsonl", output_dir / "skipped.jsonl"
    skipped_path.unlink(missing_ok=True)
    if skipped:
        _write(skipped_path, "".join(map(_to_line, skipped)))
        shown = [f"  line {row['index'] + 1}, {row['voice']}: {row['text'][:60]!r}" for row in skipped[:20]]
        shown += [f"  and {len(skipped) - 20} more"] if len(skipped) > 20 else []
        message = "Skipped %d of %d sentences that came out silent, all listed in %s:\n%s"
        logger.warning(message, len(skipped), len(skipped) + len(spoken), skipped_path, "\n".join(shown))
    _write(manifest, "".join(map(_to_line, spoken)))
    hours = sum(row["duration"] for row in spoken) / 3600
    logger.info("Spoke %d sentences, %.2f hours: %s", len(spoken), hours, manifest)
    return manifest


def _audio_path(output_dir: Path, index: int) -> Path:
    return output_dir / "audio" / f"{index:06d}.flac"


def _to_line(row: dict) -> str:
    line = json.dumps(row, ensure_ascii=False) + "\n"
    line.encode()  # raises on half a surrogate pair, which no file could hold
    return line


def _write(path: Path, text: str) -> None:
    """Writes a whole file or none."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", type=Path, help="JSONL file, one object a line with at least `text`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the audio and the manifest")
    parser.add_argument("--engine", choices=ENGINES, default="nanotts")
    parser.add_argument("--voices", nargs="+", metavar="VOICE", help="voices to draw from (default: the English ones)")
    ranges = {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--speed", **ranges, default=(0.9, 1.2), help="range of the tempo factor (default: 0.9 1.2)")
    parser.add_argument("--pitch", **ranges, help="range of the pitch factor (default: 0.85 1.2 where it can change)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--num-workers", type=int, help="processes at a time (default: one per core)")
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        synthesize(output_dir=arguments.pop("out"), **arguments)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: run the same command again to resume\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--chunk"]:
        directory, version, chunk_calls = json.load(sys.stdin)
        _Chunk(Path(directory), version, chunk_calls).speak()
    else:
        main()

"""Speak sentences offline with text-to-speech engines, on CPU, without a network.

```bash
pip install -e ".[tts]"                # py-nanotts and hibari-tts, 3 English timbres
apt-get install -y flite espeak-ng     # system programs, used where they are found; 8 in all
python training/data/synthesize.py sentences.jsonl --out data/spoken
python training/data/synthesize.py sentences.jsonl --out data/spoken --voices nanotts:en-GB flite:slt --speed 0.8 1.3
python training/data/synthesize.py sentences.jsonl --out data/spoken --held-out-voices flite:awb hibari:heart
python training/data/synthesize.py sentences.jsonl --out data/noisy --noise data/noises --snr 0 20 --reverb 0.2 0.8
python training/data/synthesize.py sentences.jsonl --out data/shards --shards 1000 --only-shards
```

`sentences.jsonl` holds one JSON object a line with at least `text`. The optional `voice`, `speed`, `pitch`, `snr` and
`rt60` fix these for their line; otherwise they are drawn, as a function of the seed and the line number alone: first
the timbre, then one of its voices, speed and pitch uniformly. Every other field (`task`, `target`, `split` ...) is
carried through unchanged:

```json
{"text": "Set an alarm for seven.", "task": "slu", "target": "alarm_set", "split": "train"}
{"text": "Stell einen Wecker.", "voice": "nanotts:de-DE", "speed": 1.0, "snr": null}
```

The output folder then holds:

- `audio/000000.flac`, ...: 16 kHz mono, named by the position of the line, from 0;
- `manifest.jsonl`: one JSON object a spoken sentence, in input order: `audio` (relative to the manifest), `duration`
  (s), `text`, `engine` (`name==version`), `voice`, `timbre`, `speed`, `pitch`; with augmentation `rt60` (s), `drr` (dB),
  `room_seed`, `snr` (dB), `noise` (its file) and `noise_start` (s); with held-out voices `voice_split`, "held-out" or
  "seen"; then the carried fields, and the voice's `language`, `accent` and `gender` where the line has none;
- `shards/000000.tar`, ...: with `--shards`, WebDataset's layout; see `shards.py`. With `--only-shards` there is no
  `audio/`, and a manifest row has `shard` and `key` in place of `audio`;
- `skipped.jsonl`: the sentences that came out silent (text in a script that the voice cannot read, say), if any;
- `.chunks/`: what is finished, so that the same command, run again after an interruption, speaks only the rest.

The audio is a function of the sentences, the voices there are, the options and the seed, whatever the number of
workers. Lines are spoken in chunks of fixed size, each by a process of its own.

With held-out voices, a line whose `split` is not "test" is never spoken by one of them, nor by another voice of the same
timbre; lines of the split "test" are spoken by them alone, unless `--test-voices` says otherwise.
"""

import argparse
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np


if __package__:
    from .augmentation import Augmentation
    from .chunks import Chunk, speak_missing
    from .clip_store import SPOKEN_FIELDS, ClipStore
    from .tts_engines import VOICES, Voice, find_voice
    from .voice_pool import TEST_VOICES, VoicePool, group_timbres
    from .whole_files import write_whole
else:  # run as a script, which starts fast: importing the package would load PyTorch
    from augmentation import Augmentation
    from chunks import Chunk, speak_missing
    from clip_store import SPOKEN_FIELDS, ClipStore
    from tts_engines import VOICES, Voice, find_voice
    from voice_pool import TEST_VOICES, VoicePool, group_timbres
    from whole_files import write_whole

logger = logging.getLogger(__name__)

CHUNK_SIZE = 64  # lines spoken by one process; an interruption loses at most one chunk per worker
WRITTEN_FIELDS = (
    *("audio", "duration", "engine", "timbre", "voice_split", "shard", "key"),
    *("drr", "room_seed", "noise", "noise_start"),
)


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
    voices: Sequence[str] | None = None,
    language: str = "en",
    held_out_voices: Sequence[str] = (),
    test_voices: str = "held-out",
    speed: tuple[float, float] = (0.9, 1.2),
    pitch: tuple[float, float] | None = None,
    noise: str | Path | None = None,
    snr: tuple[float, float] | None = None,
    reverb: tuple[float, float] | None = None,
    shards: int | None = None,
    only_shards: bool = False,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """
    Speaks sentences into 16 kHz mono FLAC files and lists them in a manifest. Run again after an interruption, it
    speaks only what is missing.

    Args:
        sentences (`str`, `Path` or `list[dict]`):
            A JSONL file or its objects, each with `text` and optionally `voice`, `speed`, `pitch`, `snr` and `rt60`;
            the other fields are carried through.
        output_dir (`str` or `Path`):
            Folder of the audio and the manifest, created if absent.
        voices (`list[str]`, *optional*):
            Keys of `VOICES` to draw from; defaults to every installed voice of `language`. Every timbre is as likely
            as another, however many accents it has.
        language (`str`, *optional*, defaults to `"en"`):
            ISO 639-1 code of the default voices.
        held_out_voices (`list[str]`, *optional*):
            Voices whose timbres speak no line of another split than "test".
        test_voices (`str`, *optional*, defaults to `"held-out"`):
            Who speaks the split "test" if voices are held out: "held-out" ones, "seen" ones, or "all".
        speed (`tuple[float, float]`, *optional*, defaults to `(0.9, 1.2)`):
            Range of the tempo factor to draw from; 2 is twice as fast.
        pitch (`tuple[float, float]`, *optional*):
            Range of the pitch factor to draw from; 2 is an octave higher. Defaults to `(0.85, 1.2)`. A voice whose
            pitch cannot change keeps 1.
        noise (`str` or `Path`, *optional*):
            Folder or JSONL manifest of noise recordings to mix in.
        snr (`tuple[float, float]`, *optional*):
            Range of the signal-to-noise ratio to draw from, dB; defaults to `(5, 20)` where `noise` is given.
        reverb (`tuple[float, float]`, *optional*):
            Range of the reverberation time (RT60) to draw from, s; by default there is no room.
        shards (`int`, *optional*):
            Lines in a tar shard; by default no shards are written.
        only_shards (`bool`, *optional*, defaults to `False`):
            Whether the shards stand in place of the loose files.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.
        num_workers (`int`, *optional*):
            Processes at a time; defaults to one per available core. It does not change the output.

    Returns:
        `Path`: The manifest, `manifest.jsonl` in `output_dir`.

    Raises:
        ValueError: If an option or a line cannot be used; file, line and field are named.
        ImportError: If an engine, or scipy for reverberation, is not installed.
        RuntimeError: If an engine fails; what is finished stays.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers < 1:
        raise ValueError(f"`num_workers` is {num_workers}: give 1 or more.")
    if shards is not None and shards < 1:
        raise ValueError(f"`shards` is {shards}: give 1 line a shard or more.")
    if only_shards and shards is None:
        raise ValueError("`only_shards` is given without `shards`: give the lines in a shard too.")
    pool = VoicePool(voices, language, held_out_voices, test_voices)
    augmentation = Augmentation.from_options(noise, snr, reverb)

    if isinstance(sentences, (str, Path)):
        source, sentences = str(sentences), read_sentences(sentences)
    else:
        source, sentences = "sentences", list(sentences)
    calls = _plan_calls(sentences, pool, speed, pitch, augmentation, seed, source)

    if any("rt60" in call for call in calls) and find_spec("scipy") is None:
        raise ImportError("Reverberation needs scipy: run `pip install scipy`.")

    store = ClipStore(Path(output_dir), augmentation.noise_folder)
    chunks = [Chunk(store, calls[i : i + CHUNK_SIZE]) for i in range(0, len(calls), CHUNK_SIZE)]
    speak_missing([chunk for chunk in chunks if chunk.durations() is None], source, len(calls), num_workers)

    spoken, skipped = {}, []
    durations = [duration for chunk in chunks for duration in chunk.durations()]
    for sentence, call, duration in zip(sentences, calls, durations, strict=True):
        how = {key: call[key] for key in SPOKEN_FIELDS if key in call}
        if duration is None:
            skipped.append({"index": call["index"], "reason": "silent"} | how)
        else:
            spoken[call["index"]] = {"duration": duration} | how | _facts(VOICES[call["voice"]], pool) | sentence
    rows = store.lay_out(spoken, shards, only_shards)
    return _write_manifest(store.folder, rows, skipped)


def _facts(voice: Voice, pool: VoicePool) -> dict:
    """What the manifest says of a voice."""
    facts = {"timbre": voice.timbre, "language": voice.language, "accent": voice.accent, "gender": voice.gender}
    return facts | ({"voice_split": "held-out" if pool.is_held_out(voice) else "seen"} if pool.held_out else {})


def _plan_calls(
    sentences: list[dict],
    pool: VoicePool,
    speed: tuple[float, float],
    pitch: tuple[float, float] | None,
    augmentation: Augmentation,
    seed: int,
    source: str,
) -> list[dict]:
    """What to do for each sentence: `index` and the `SPOKEN_FIELDS` that apply."""
    pitch = _check_ranges([*pool.seen, *pool.held_out], speed, pitch)
    if seed < 0:
        raise ValueError(f"`seed` is {seed}: give 0 or more.")
    if not sentences:
        raise ValueError(f"{source} holds no sentences: give at least one object with a `text` field.")

    calls = []
    for index, sentence in enumerate(sentences):
        where = f"{source}, line {index + 1}"
        _check_sentence(sentence, where)
        how = _draw_voice(sentence, pool, speed, pitch, np.random.default_rng([seed, index]), where)
        calls.append(
            {"index": index, "text": sentence["text"]} | how | augmentation.draw(seed, index, sentence, where)
        )
    return calls


def _draw_voice(
    sentence: dict,
    pool: VoicePool,
    speed: tuple[float, float],
    pitch: tuple[float, float],
    draw: np.random.Generator,
    where: str,
) -> dict:
    """`engine`, `voice`, `speed` and `pitch` of a line: what it fixes, and draws for the rest."""
    split = sentence.get("split")
    timbres = list(group_timbres(pool.of_split(split)).values())
    if not timbres and "voice" not in sentence:
        raise ImportError("No engine for this language is installed: run `pip install py-nanotts hibari-tts`.")
    # Four numbers whatever there is to choose from: another pool of voices leaves speed and pitch as they are.
    place, drawn_speed, drawn_pitch, accent = draw.random(), draw.uniform(*speed), draw.uniform(*pitch), draw.random()
    if "voice" in sentence:
        voice = find_voice(sentence["voice"], f"{where}, field `voice`")
        pool.check(voice, split, f"{where}, field `voice`")
    else:
        timbre = timbres[int(place * len(timbres))]
        voice = timbre[int(accent * len(timbre))]
    drawn = {"speed": round(drawn_speed, 4), "pitch": round(drawn_pitch, 4) if voice.pitched else 1.0}
    drawn |= {key: sentence[key] for key in drawn if key in sentence}
    _check_factor(drawn["speed"], voice.speed_limits, voice, f"{where}, field `speed`")
    _check_factor(drawn["pitch"], voice.pitch_limits, voice, f"{where}, field `pitch`")
    return {"engine": pool.engine_of(voice), "voice": voice.name} | drawn


def _check_ranges(
    voices: list[Voice], speed: tuple[float, float], pitch: tuple[float, float] | None
) -> tuple[float, float]:
    """The range of the pitch, once both ranges are known to suit every voice."""
    for name, bounds in (("speed", speed), ("pitch", pitch or (1.0, 1.0))):
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"`{name}` is {list(bounds)}: give the lowest and the highest factor, in this order.")
    for voice in voices:
        for bound in speed:
            _check_factor(bound, voice.speed_limits, voice, "`speed`")
    pitched = [voice for voice in voices if voice.pitched]
    for voice in pitched or voices:  # beside others, a voice whose pitch cannot change keeps 1
        for bound in pitch or (1.0, 1.0):
            _check_factor(bound, voice.pitch_limits, voice, "`pitch`")
    return pitch or (0.85, 1.2)


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


def _check_factor(value: float, limits: tuple[float, float], voice: Voice, where: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not limits[0] <= value <= limits[1]:
        raise ValueError(f"{where} is {value!r}: {voice.name} takes a number from {limits[0]} to {limits[1]}.")


def _write_manifest(output_dir: Path, spoken: list[dict], skipped: list[dict]) -> Path:
    manifest, skipped_path = output_dir / "manifest.jsonl", output_dir / "skipped.jsonl"
    skipped_path.unlink(missing_ok=True)
    if skipped:
        write_whole(skipped_path, "".join(map(_to_line, skipped)).encode())
        shown = [f"  line {row['index'] + 1}, {row['voice']}: {row['text'][:60]!r}" for row in skipped[:20]]
        shown += [f"  and {len(skipped) - 20} more"] if len(skipped) > 20 else []
        message = "Skipped %d of %d sentences that came out silent, all listed in %s:\n%s"
        logger.warning(message, len(skipped), len(skipped) + len(spoken), skipped_path, "\n".join(shown))
    write_whole(manifest, "".join(map(_to_line, spoken)).encode())
    hours = sum(row["duration"] for row in spoken) / 3600
    logger.info("Spoke %d sentences, %.2f hours: %s", len(spoken), hours, manifest)
    return manifest


def _to_line(row: dict) -> str:
    line = json.dumps(row, ensure_ascii=False) + "\n"
    line.encode()  # raises on half a surrogate pair, which no file could hold
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", type=Path, help="JSONL file, one object a line with at least `text`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the audio and the manifest")
    ranges = {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
    names = {"nargs": "+", "metavar": "ENGINE:VOICE"}
    parser.add_argument("--voices", **names, help="voices to draw from (default: every installed one of --language)")
    parser.add_argument("--language", default="en", help="language of the default voices (default: en)")
    parser.add_argument("--held-out-voices", **names, default=(), help="voices that speak only lines of split test")
    parser.add_argument("--test-voices", choices=TEST_VOICES, default="held-out", help="who speaks the split test")
    parser.add_argument("--speed", **ranges, default=(0.9, 1.2), help="range of the tempo factor (default: 0.9 1.2)")
    parser.add_argument("--pitch", **ranges, help="range of the pitch factor (default: 0.85 1.2 where it can change)")
    parser.add_argument("--noise", type=Path, metavar="FOLDER_OR_MANIFEST", help="noises to mix in")
    parser.add_argument("--snr", **ranges, help="range of the signal-to-noise ratio, dB (default with --noise: 5 20)")
    parser.add_argument("--reverb", **ranges, help="range of the reverberation time, s (default: no room)")
    parser.add_argument("--shards", type=int, metavar="LINES", help="write tar shards of so many lines too")
    parser.add_argument("--only-shards", action="store_true", help="write no loose files beside the shards")
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
    main()

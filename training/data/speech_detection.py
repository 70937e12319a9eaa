"""Clips with speech and clips without, in pairs that differ in nothing else.

A corpus of clean speech and one of noise would teach to tell the corpora apart: by length, bandwidth, level, room, or by
whether there is noise behind. Here a clip of speech and one of another sound are made as a pair, which shares all of these:
both are as long as the shorter one, in the same room, with the same noise at the same ratio behind them, at the same level,
and if one of them is narrow-band, so is the other.

The output folder holds `audio/000000.flac`, ..., 16 kHz mono, and `manifest.jsonl` with `audio`, `duration` (s), `target`
"speech" or "not speech", `pair`, `source`, `split`, `narrow`, `level` (dB of full scale), and where they were drawn `noise`,
`snr` (dB) and `rt60` (s).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from ...processing.audio_speechverse import load_audio
from .mixing import FADE, PEAK, SAMPLING_RATE, active_power, add_noise, reverberate, seeded
from .whole_files import write_whole


MAX_SECONDS = 4.0
NARROW_RATE = 8_000  # Hz
NARROW_SHARE = 0.1  # of the pairs that need not be
ROOM_SHARE = NOISE_SHARE = 0.5
RT60, DRR = (0.2, 0.6), (0.0, 10.0)  # s, dB
SNR = (5.0, 25.0)  # dB
LEVEL = (-35.0, -18.0)  # dB of full scale, of the active part
FLOOR = -40.0  # dB below the level: else the silence of a cut or a pause would be digital, and that of a recording not


def pair_clips(
    speech: Sequence[dict], sounds: Sequence[dict], output_dir: str | Path, num_pairs: dict[str, int], seed: int = 0
) -> Path:
    """
    Makes the clips.

    Args:
        speech, sounds (`list[dict]`): Recordings with `audio` (a path), `split`, and `narrow` where nothing above 4 kHz is in
            them. The sounds of a split are also the noise behind its clips. Where `turn` is given, recordings are taken from
            one value of it after the other, so that none of them prevails.
        output_dir (`str` or `Path`): Folder of the clips and their manifest, created if absent.
        num_pairs (`dict[str, int]`): How many pairs of each split.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `Path`: `manifest.jsonl` in `output_dir`.

    Raises:
        ValueError: If a split has no speech, or no other sound.
    """
    output_dir = Path(output_dir)
    (output_dir / "audio").mkdir(parents=True, exist_ok=True)
    lines = []
    planned = [(split, rank) for split, count in num_pairs.items() for rank in range(count)]
    orders = {}
    for split in num_pairs:
        for name, rows in (("speech", speech), ("sounds", sounds)):
            orders[name, split] = _in_turn([row for row in rows if row["split"] == split], seed, f"{name} {split}")
            if not orders[name, split]:
                raise ValueError(f"The split {split!r} has no recording among the {name}: there is nothing to pair.")
    for pair, (split, rank) in enumerate(tqdm(planned, unit="pair", desc="Pairing")):
        rows = [orders[name, split][rank % len(orders[name, split])] for name in ("speech", "sounds")]
        draw = seeded(seed, f"pair {split} {rank}")
        how = _draw_conditions(draw, rows, orders["sounds", split])
        for row, clip, target in zip(rows, _make(rows, how, draw), ("speech", "not speech"), strict=True):
            path = output_dir / "audio" / f"{len(lines):06d}.flac"
            soundfile.write(path, clip, SAMPLING_RATE)
            line = {
                "audio": f"audio/{path.name}",
                "duration": len(clip) / SAMPLING_RATE,
                "target": target,
                "pair": pair,
            }
            line |= {"source": _below(row["audio"], output_dir), "split": split}
            line |= {name: how[name] for name in ("narrow", "level", "snr", "rt60") if how[name] is not None}
            line |= {"noise": _below(how["noise"], output_dir)} if how["noise"] else {}
            lines.append(line)
    write_whole(output_dir / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return output_dir / "manifest.jsonl"


def _in_turn(rows: list[dict], seed: int, key: str) -> list[dict]:
    """The rows in a drawn order, one of every `turn` after the other; those of a small one come again."""
    groups = {}
    for place in seeded(seed, f"order {key}").permutation(len(rows)):
        groups.setdefault(rows[place].get("turn"), []).append(rows[place])
    longest = max(map(len, groups.values()), default=0)
    return [group[rank % len(group)] for rank in range(longest) for group in groups.values()]


def _draw_conditions(draw: np.random.Generator, rows: list[dict], noises: list[dict]) -> dict:
    """What the two clips of a pair share."""
    narrow, room, noise = draw.random() < NARROW_SHARE, draw.random() < ROOM_SHARE, draw.random() < NOISE_SHARE
    drawn = {
        "rt60": draw.uniform(*RT60),
        "drr": draw.uniform(*DRR),
        "snr": draw.uniform(*SNR),
        "level": draw.uniform(*LEVEL),
    }
    drawn = {name: round(value, 3) for name, value in drawn.items()}
    behind = [row["audio"] for row in noises if row["audio"] != rows[1]["audio"]]
    return drawn | {
        "narrow": bool(narrow or any(row.get("narrow") for row in rows)),
        "rt60": drawn["rt60"] if room else None,
        "room_seed": int(draw.integers(2**31)),
        "noise": behind[int(draw.integers(len(behind)))] if noise and behind else None,
        "snr": drawn["snr"] if noise and behind else None,
    }


def _make(rows: list[dict], how: dict, draw: np.random.Generator) -> list[np.ndarray]:
    waves = [load_audio(row["audio"], SAMPLING_RATE) for row in rows]
    length = min(*map(len, waves), round(MAX_SECONDS * SAMPLING_RATE))
    noise = load_audio(how["noise"], SAMPLING_RATE) if how["noise"] else None
    start = int(draw.integers(len(noise))) if noise is not None else 0
    clips = []
    for wave in waves:
        clip = _loudest_piece(wave, length)
        if how["rt60"] is not None:
            clip = reverberate(clip, how["rt60"], how["drr"], how["room_seed"])[:length]
        if noise is not None:
            clip = add_noise(clip, np.roll(noise, -start), how["snr"])
        if how["narrow"]:
            narrow = soxr.resample(clip, SAMPLING_RATE, NARROW_RATE)
            clip = np.resize(soxr.resample(narrow, NARROW_RATE, SAMPLING_RATE), length)
        clip = clip * 10 ** (how["level"] / 20) / np.sqrt(active_power(clip))
        clip = clip + 10 ** ((how["level"] + FLOOR) / 20) * draw.standard_normal(length)
        ramp = np.linspace(0, 1, min(round(FADE * SAMPLING_RATE), length // 2))
        clip[: len(ramp)] *= ramp
        clip[length - len(ramp) :] *= ramp[::-1]
        clips.append((clip * min(1.0, PEAK / np.abs(clip).max())).astype(np.float32))
    return clips


def _loudest_piece(wave: np.ndarray, length: int) -> np.ndarray:
    """The piece with the most energy: a bark in five seconds of silence is not cut away."""
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[: len(energy) - length]))
    return wave[start : start + length]


def _below(path: str | Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()

"""Which room and which noise a line is heard in: drawn for every line, recorded, applied."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr


if __package__:
    from .mixing import SAMPLING_RATE, add_noise, reverberate, seeded
else:  # beside a script
    from mixing import SAMPLING_RATE, add_noise, reverberate, seeded

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SNR_LIMITS = (-20.0, 60.0)  # dB
RT60_LIMITS = (0.05, 5.0)  # s
DRR_RANGE = (0.0, 10.0)  # dB; from across a small room to arm's length


@dataclass(frozen=True)
class Augmentation:
    """
    What may be done to speech.

    Attributes:
        noises (`list[tuple[str, float]]`): Files of noise, relative to `noise_folder`, and their durations, s.
        noise_folder (`Path`, *optional*): Where they lie.
        snr (`tuple[float, float]`, *optional*): Range of the signal-to-noise ratio, dB.
        rt60 (`tuple[float, float]`, *optional*): Range of the reverberation time, s.
    """

    noises: list[tuple[str, float]] = field(default_factory=list)
    noise_folder: Path | None = None
    snr: tuple[float, float] | None = None
    rt60: tuple[float, float] | None = None

    @classmethod
    def from_options(
        cls,
        noise: str | Path | None = None,
        snr: tuple[float, float] | None = None,
        reverb: tuple[float, float] | None = None,
    ) -> "Augmentation":
        """
        Checks the options and lists the noises.

        Args:
            noise (`str` or `Path`, *optional*): A folder of audio files, searched in depth, or a JSONL manifest whose
                lines have `audio`, relative to its folder.
            snr (`tuple[float, float]`, *optional*): dB; defaults to `(5, 20)` where there is noise.
            reverb (`tuple[float, float]`, *optional*): s.

        Raises:
            ValueError: If a range is out of order or out of its limits, or there is no noise.
        """
        if snr is not None and noise is None:
            raise ValueError("`snr` is given without `noise`: give a folder or a manifest of noises too.")
        if noise is not None:
            snr = snr or (5.0, 20.0)
        for name, bounds, limits, unit in (("snr", snr, SNR_LIMITS, "dB"), ("reverb", reverb, RT60_LIMITS, "s")):
            if bounds is not None and not (len(bounds) == 2 and limits[0] <= bounds[0] <= bounds[1] <= limits[1]):
                span = f"from {limits[0]} to {limits[1]} {unit}"
                raise ValueError(
                    f"`{name}` is {list(bounds)}: give the lowest and the highest, in this order, {span}."
                )
        folder, noises = list_noises(Path(noise)) if noise is not None else (None, [])
        return cls(noises, folder, snr, reverb)

    def draw(self, seed: int, index: int, line: dict, where: str) -> dict:
        """
        Draws for one line. Its own `snr` and `rt60` go before the draw; null stands for no noise, or no room.

        Returns:
            `dict`: What applies of `rt60` (s), `drr` (dB, direct to reverberant), `room_seed`; `snr` (dB), `noise`
            (file) and `noise_start` (s).
        """
        drawn = {}
        draw = seeded(seed, f"room {index}")
        rt60 = round(draw.uniform(*self.rt60), 3) if self.rt60 else None
        drr, room_seed = round(draw.uniform(*DRR_RANGE), 2), int(draw.integers(2**31))
        draw = seeded(seed, f"noise {index}")  # of its own: the noise stays the same without the room
        snr = round(draw.uniform(*self.snr), 2) if self.snr else None
        noise, start = int(draw.integers(max(1, len(self.noises)))), draw.random()
        rt60 = _fixed(line, "rt60", rt60, RT60_LIMITS, where)
        snr = _fixed(line, "snr", snr, SNR_LIMITS, where)
        if rt60 is not None:
            drawn |= {"rt60": rt60, "drr": drr, "room_seed": room_seed}
        if snr is not None:
            if not self.noises:
                raise ValueError(f"{where}, field `snr` asks for noise: give `noise`, a folder or a manifest, too.")
            name, duration = self.noises[noise]
            drawn |= {"snr": snr, "noise": name, "noise_start": round(start * duration, 3)}
        return drawn


def augment(wave: np.ndarray, drawn: dict, noise_folder: str | Path | None) -> np.ndarray:
    """Applies what [`Augmentation.draw`] drew to speech at 16 kHz: the room first, then the noise, which it leaves dry."""
    if "rt60" in drawn:
        wave = reverberate(wave, drawn["rt60"], drawn["drr"], drawn["room_seed"])
    if "noise" in drawn:
        noise = _read_noise(Path(noise_folder) / drawn["noise"], drawn["noise_start"], len(wave) / SAMPLING_RATE)
        wave = add_noise(wave, noise, drawn["snr"])
    return wave


def list_noises(source: Path) -> tuple[Path, list[tuple[str, float]]]:
    """
    The noises of a folder or a manifest, in an order that does not depend on the file system.

    Returns:
        the folder that they lie in, and of each its path relative to it and its duration, s.

    Raises:
        ValueError: If there are none, or one cannot be read; the message names it.
    """
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        folder, names = source, sorted(path.relative_to(source).as_posix() for path in found)
    elif source.is_file():
        folder, names = source.parent, _listed(source)
    else:
        raise ValueError(f"`noise` is {str(source)!r}: give a folder of audio files or a JSONL manifest.")
    if not names:
        raise ValueError(f"`noise` is {str(source)!r}: it holds no audio files ({', '.join(AUDIO_SUFFIXES)}).")
    return folder, [(name, _duration(folder, name)) for name in names]


def _duration(folder: Path, name: str) -> float:
    try:
        info = soundfile.info(folder / name)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"The noise {name} in {folder} cannot be read ({error}): remove or replace it.") from error
    if not info.frames:
        raise ValueError(f"The noise {name} in {folder} is empty: remove or replace it.")
    return info.frames / info.samplerate


def _listed(manifest: Path) -> list[str]:
    names = []
    for number, line in enumerate(manifest.read_bytes().splitlines(), start=1):
        try:
            names.append(os.fspath(json.loads(line)["audio"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest}, line {number} is no object with `audio` ({error}).") from error
    return names


def _read_noise(path: Path, start: float, seconds: float) -> np.ndarray:
    """A piece of a recording, or all of it, begun at `start`, where it is shorter than that."""
    with soundfile.SoundFile(path) as file:
        rate, first, count = file.samplerate, round(start * file.samplerate), math.ceil(seconds * file.samplerate)
        wave = np.zeros(0, np.float32)
        if first + count <= file.frames:  # decoding and resampling minutes of it would take longer than the speech
            file.seek(first)
            wave = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
        if not wave.any():
            file.seek(0)
            wave = file.read(dtype="float32", always_2d=True).mean(axis=1)
            loud = wave[first : first + count].any()
            wave = np.roll(wave, -(first if loud else int(np.abs(wave).argmax())))[:count]
    return soxr.resample(wave, rate, SAMPLING_RATE) if rate != SAMPLING_RATE else wave


def _fixed(line: dict, name: str, drawn: float | None, limits: tuple[float, float], where: str) -> float | None:
    value = line.get(name, drawn)
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not limits[0] <= value <= limits[1]:
        raise ValueError(
            f"{where}, field `{name}` is {value!r}: give null or a number from {limits[0]} to {limits[1]}."
        )
    return value

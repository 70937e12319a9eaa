"""Sounds that nobody speaks, made of formulas: a stand-in where no recordings of noise are there."""

from collections.abc import Callable

import numpy as np

from .mixing import SAMPLING_RATE, seeded


PEAK = 0.5


def coloured(draw: np.random.Generator, length: int) -> np.ndarray:
    """Noise whose power falls with the frequency, from white to brown."""
    spectrum = np.fft.rfft(draw.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length), 1 / length)
    return np.fft.irfft(spectrum * frequency ** -draw.uniform(0, 1), length)


def hum(draw: np.random.Generator, length: int) -> np.ndarray:
    """A steady tone with harmonics, as of a motor, over a little noise."""
    phase = 2 * np.pi * draw.uniform(40, 400) * np.arange(length) / SAMPLING_RATE
    tones = sum(draw.uniform(0, 1) / order * np.sin(order * phase) for order in range(1, 9))
    return tones + 0.05 * draw.standard_normal(length)


def knocks(draw: np.random.Generator, length: int) -> np.ndarray:
    """Short strokes at irregular intervals."""
    wave = 0.003 * draw.standard_normal(length)
    place = int(draw.uniform(0, 0.3) * SAMPLING_RATE)
    while place < length:
        decay = np.exp(-np.arange(length - place) / (draw.uniform(0.005, 0.05) * SAMPLING_RATE))
        wave[place:] += draw.uniform(0.3, 1) * decay * draw.standard_normal(length - place)
        place += int(draw.uniform(0.08, 0.8) * SAMPLING_RATE)
    return wave


def gusts(draw: np.random.Generator, length: int) -> np.ndarray:
    """Noise that swells and fades as fast as syllables, or more slowly."""
    time = np.arange(length) / SAMPLING_RATE
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * draw.uniform(0.5, 6) * time + draw.uniform(0, 6))
    return coloured(draw, length) * (0.05 + swell)


def sweep(draw: np.random.Generator, length: int) -> np.ndarray:
    """A tone that rises and falls, as of a siren."""
    time = np.arange(length) / SAMPLING_RATE
    frequency = draw.uniform(300, 1500) * (
        1 + draw.uniform(0.1, 0.5) * np.sin(2 * np.pi * draw.uniform(0.2, 3) * time)
    )
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE) + 0.02 * draw.standard_normal(length)


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    maker.__name__: maker for maker in (coloured, hum, knocks, gusts, sweep)
}


def generate_noise(kind: str, seconds: float, seed: int, key: str) -> np.ndarray:
    """
    Makes a sound of one of the `KINDS`, a function of the seed and the key.

    Returns:
        `np.ndarray`: `float32` mono audio of shape `(seconds * 16000,)` with a peak of 0.5.
    """
    wave = KINDS[kind](seeded(seed, f"{kind} {key}"), round(seconds * SAMPLING_RATE))
    return (PEAK * wave / np.abs(wave).max()).astype(np.float32)

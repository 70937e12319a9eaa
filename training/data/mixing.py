"""Mixing of waveforms: noise at an SNR, reverberation, two pieces of speech in one clip.

Every function takes and returns mono `float32` waveforms of shape `(num_samples,)`. What would clip is scaled down as a
whole, so that ratios stay. What is drawn is a function of a seed and a key alone: see [`seeded`].
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np


SAMPLING_RATE = 16_000  # Hz
PEAK = 0.99  # largest amplitude of a mixture
FRAME = 0.02  # s; the level of speech is measured frame by frame
ACTIVE_RANGE = 40  # dB below the loudest frame at which a frame still counts as speech
PREDELAY = 0.0025  # s from the direct sound to the first reflection, 86 cm of detour
MAX_OVERLAP = 1.0  # s in which two speakers may be heard at once
FADE = 0.01  # s; a cut without a fade clicks


def seeded(seed: int, key: str) -> np.random.Generator:
    """A generator that depends on the seed and the key alone, so not on what was drawn before."""
    return np.random.default_rng([seed, *hashlib.sha256(key.encode()).digest()])


def active_power(wave: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> float:
    """
    Mean square of the active part of a waveform: the frames of 20 ms that are less than 40 dB below the loudest one.
    Pauses thus do not count, however long they are.
    """
    length = max(1, round(FRAME * sampling_rate))
    if not len(wave):
        return 0.0
    frames = np.pad(wave.astype(np.float64), (0, -len(wave) % length)).reshape(-1, length)
    powers = (frames**2).sum(axis=1) / length
    powers[-1] *= length / (len(wave) - length * (len(powers) - 1))  # the last frame may be short
    return float(powers[powers >= powers.max() * 10 ** (-ACTIVE_RANGE / 10)].mean())


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """
    Adds noise at a signal-to-noise ratio: `10 log10(active power of the speech / mean square of the noise)`.

    Args:
        wave (`np.ndarray`): The speech; see [`active_power`] for what of it counts.
        noise (`np.ndarray`): The noise, of any length: what is missing is filled by repetition, what is over is left.
        snr_db (`float`): Wanted ratio, dB.
        sampling_rate (`int`, *optional*, defaults to 16,000): Rate of both, Hz.

    Raises:
        ValueError: If the speech or the noise is silent.
    """
    speech_power = active_power(wave, sampling_rate)
    noise = np.resize(noise, len(wave)).astype(np.float64)
    for name, power in (("speech", speech_power), ("noise", noise.any())):
        if not power:
            raise ValueError(f"The {name} is silent: there is no signal-to-noise ratio.")
    wanted_power = speech_power / 10 ** (snr_db / 10)
    return _unclipped(wave + noise * math.sqrt(wanted_power / np.mean(noise**2)))


def room_response(rt60: float, drr_db: float, seed: int, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """
    A synthetic impulse response of a room: the direct sound, then white noise that decays by 60 dB in `rt60` seconds.

    Args:
        rt60 (`float`): Reverberation time, s.
        drr_db (`float`): Energy of the direct sound relative to that of the rest, dB.
        seed (`int`): Seed of the noise.
        sampling_rate (`int`, *optional*, defaults to 16,000): Hz.

    Returns:
        `np.ndarray` of shape `(rt60 * sampling_rate,)`, `float64`: 1 at first, for the direct sound.

    Raises:
        ValueError: If `rt60` is not longer than the 2.5 ms to the first reflection.
    """
    if rt60 <= PREDELAY:
        raise ValueError(f"The reverberation time is {rt60} s: give more than {PREDELAY} s.")
    time = np.arange(round(rt60 * sampling_rate)) / sampling_rate
    response = np.random.default_rng(seed).standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    response[time < PREDELAY] = 0
    response *= math.sqrt(10 ** (-drr_db / 10) / np.sum(response**2))
    response[0] = 1
    return response


def reverberate(
    wave: np.ndarray, rt60: float, drr_db: float, seed: int, sampling_rate: int = SAMPLING_RATE
) -> np.ndarray:
    """
    Puts a waveform into a room; see [`room_response`] for the arguments. The direct sound keeps its place and level,
    and the result is longer by the room's response less one sample.
    """
    from scipy.signal import oaconvolve  # half a second to import: only who reverberates pays for it

    response = room_response(rt60, drr_db, seed, sampling_rate)
    return _unclipped(oaconvolve(wave.astype(np.float64), response))


@dataclass(frozen=True)
class Turn:
    """
    How a second piece of speech follows a first one.

    Attributes:
        gap (`float`): From the end of the first piece to the start of the second, s. Below 0 both are heard together.
        level (`float`): Level of the second piece relative to the first, dB.
    """

    gap: float
    level: float


def draw_turn(
    seed: int,
    key: str,
    same_speaker: bool,
    pause: tuple[float, float] = (0.0, 0.5),
    level: tuple[float, float] = (-5.0, 5.0),
) -> Turn:
    """
    Draws how a second piece follows a first. Two speakers overlap in half of the draws, by up to a second; one never
    overlaps with himself. Pauses and levels are drawn alike for one speaker and for two.

    Args:
        seed (`int`), key (`str`): What the draw is a function of.
        same_speaker (`bool`): Whether one person speaks both pieces.
        pause (`tuple[float, float]`, *optional*, defaults to `(0.0, 0.5)`): Range of the pause, s.
        level (`tuple[float, float]`, *optional*, defaults to `(-5.0, 5.0)`): Range of the level, dB.
    """
    draw = seeded(seed, f"turn {key}")
    drawn_pause, drawn_level = draw.uniform(*pause), draw.uniform(*level)
    overlaps = not same_speaker and draw.random() < 0.5
    gap = -draw.uniform(0, MAX_OVERLAP) if overlaps else drawn_pause
    return Turn(round(gap, 3), round(drawn_level, 2))


def mix_speakers(
    first: np.ndarray, second: np.ndarray, turn: Turn, sampling_rate: int = SAMPLING_RATE
) -> tuple[np.ndarray, float]:
    """
    Joins two pieces of speech, of two speakers or of one, into a clip for speaker counting.

    The silence at the ends of the pieces goes first. Then the clip ends where it would if the pieces overlapped by as
    much as they may, a second or half of the shorter one: its length depends on the pieces alone, and neither length
    nor cut nor change of level tells how many people speak.

    Returns:
        the clip, and the seconds in which both are heard.

    Raises:
        ValueError: If a piece is silent.
    """
    first, second = (_trimmed(piece) for piece in (first, second))
    max_overlap = min(round(MAX_OVERLAP * sampling_rate), len(first) // 2, len(second) // 2)
    length = len(first) + len(second) - max_overlap
    max_pause = (len(second) - max_overlap) // 2  # so that a quarter of a short second piece is heard at least
    start = len(first) + min(max(round(turn.gap * sampling_rate), -max_overlap), max_pause)
    ratio = active_power(first, sampling_rate) / active_power(second, sampling_rate)
    second = second[: length - start]
    clip = np.zeros(length)
    clip[: len(first)] = _faded(first, sampling_rate)
    clip[start : start + len(second)] += _faded(second, sampling_rate) * math.sqrt(ratio) * 10 ** (turn.level / 20)
    return _unclipped(clip), max(0, len(first) - start) / sampling_rate


def _trimmed(wave: np.ndarray) -> np.ndarray:
    """Without the silence at its ends: what is more than 40 dB below the loudest sample."""
    loud = np.flatnonzero(np.abs(wave) > np.abs(wave).max(initial=0) * 10 ** (-ACTIVE_RANGE / 20))
    if not loud.size:
        raise ValueError("A piece of speech is silent: there is nobody to be counted.")
    return wave[loud[0] : loud[-1] + 1]


def _faded(wave: np.ndarray, sampling_rate: int) -> np.ndarray:
    """In and out within 10 ms each."""
    ramp = np.linspace(0, 1, min(round(FADE * sampling_rate), len(wave) // 2))
    wave = wave.astype(np.float64)
    wave[: len(ramp)] *= ramp
    wave[len(wave) - len(ramp) :] *= ramp[::-1]
    return wave


def _unclipped(wave: np.ndarray) -> np.ndarray:
    return (wave * min(1.0, PEAK / max(np.abs(wave).max(initial=0), 1e-9))).astype(np.float32)

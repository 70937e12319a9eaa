"""Mixing, against references computed another way: power ratios, decay, energies."""

import numpy as np
import pytest

from speechverse.training.data.mixing import (
    MAX_OVERLAP,
    PEAK,
    Turn,
    active_power,
    add_noise,
    draw_turn,
    mix_speakers,
    reverberate,
    room_response,
    seeded,
)


RATE = 16_000


def tone(seconds: float, frequency: float, amplitude: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def white(seconds: float, seed: int = 0, amplitude: float = 0.1) -> np.ndarray:
    return (amplitude * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def test_draws_depend_on_seed_and_key_alone():
    assert seeded(1, "a").random() == seeded(1, "a").random()
    assert len({seeded(seed, key).random() for seed in range(3) for key in "ab"}) == 6


def test_active_power_leaves_pauses_out():
    speech = tone(1.0, 200)
    quiet = np.zeros(2 * RATE, np.float32)
    assert active_power(speech) == pytest.approx(0.3**2 / 2, rel=1e-6)
    assert active_power(np.concatenate([quiet, speech, quiet, speech])) == pytest.approx(0.3**2 / 2, rel=1e-6)
    assert active_power(np.concatenate([speech, tone(1.0, 200, 0.3 * 10 ** (-41 / 20))])) == pytest.approx(0.045)
    assert active_power(quiet) == active_power(quiet[:0]) == 0
    assert active_power(tone(0.0101, 200)) > 0, "shorter than a frame"


@pytest.mark.parametrize("snr", [-10.0, 0.0, 7.5, 30.0])
@pytest.mark.parametrize("noise_seconds", [0.7, 3.0, 5.0])
def test_snr_is_what_was_asked(snr, noise_seconds):
    speech = np.concatenate([np.zeros(RATE), tone(1.0, 200), np.zeros(RATE)]).astype(np.float32)
    noise = white(noise_seconds)
    mixed = add_noise(speech, noise, snr)
    assert mixed.dtype == np.float32 and mixed.shape == speech.shape
    repeated = np.resize(noise, len(speech)).astype(np.float64)
    design = np.stack([speech, repeated], axis=1).astype(np.float64)
    speech_gain, noise_gain = np.linalg.lstsq(design, mixed.astype(np.float64), rcond=None)[0]
    speech_power = np.mean((speech_gain * speech[RATE : 2 * RATE].astype(np.float64)) ** 2)
    assert decibels(speech_power / np.mean((noise_gain * repeated) ** 2)) == pytest.approx(snr, abs=0.01)
    assert np.abs(mixed).max() <= PEAK
    if snr == 30:
        assert speech_gain == pytest.approx(1, abs=1e-5), "what does not clip keeps its level"
    np.testing.assert_allclose(mixed, speech_gain * speech + noise_gain * repeated, atol=1e-5)


def test_silence_has_no_snr():
    with pytest.raises(ValueError, match="The noise is silent"):
        add_noise(tone(1, 200), np.zeros(100, np.float32), 10)
    with pytest.raises(ValueError, match="The speech is silent"):
        add_noise(np.zeros(RATE, np.float32), white(1), 10)


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("drr", [-5.0, 5.0])
def test_room_decays_as_asked(rt60, drr):
    """Schroeder's backward integration: the energy left falls by 60 dB in `rt60`."""
    responses = [room_response(rt60, drr, seed) for seed in range(8)]
    times = []
    for response in responses:
        assert response[0] == 1 and len(response) == round(rt60 * RATE)
        assert decibels(1 / np.sum(response[1:] ** 2)) == pytest.approx(drr, abs=1e-6)
        left = np.cumsum(response[:0:-1] ** 2)[::-1]
        level = 10 * np.log10(left / left[0])
        fitted = np.flatnonzero((level < -5) & (level > -35))
        slope = np.polyfit(fitted / RATE, level[fitted], 1)[0]
        times.append(-60 / slope)
    assert np.mean(times) == pytest.approx(rt60, rel=0.05)
    assert np.std(times) > 0, "another seed is another room"


def test_reverberation_is_a_convolution():
    pytest.importorskip("scipy")
    speech = white(0.3, amplitude=0.01)
    wet = reverberate(speech, 0.2, 3.0, seed=5)
    expected = np.convolve(speech.astype(np.float64), room_response(0.2, 3.0, seed=5))
    assert wet.dtype == np.float32
    np.testing.assert_allclose(wet, expected, atol=1e-7)
    np.testing.assert_array_equal(wet, reverberate(speech, 0.2, 3.0, seed=5))
    assert np.abs(reverberate(tone(0.3, 200, 0.99), 1.0, -10.0, seed=5)).max() == pytest.approx(PEAK)


def test_room_without_a_tail_is_refused():
    with pytest.raises(ValueError, match="The reverberation time is 0.001 s"):
        room_response(0.001, 0, 0)


@pytest.mark.parametrize("gap", [-0.5, 0.0, 0.4])
@pytest.mark.parametrize("level", [-5.0, 0.0, 5.0])
def test_two_pieces_are_heard_where_and_how_loud(gap, level):
    """Tones of two frequencies tell who is heard, at which level."""
    silence = np.zeros(RATE // 2, np.float32)
    first, second = tone(2.0, 200), tone(3.0, 1000, 0.05)
    clip, overlap = mix_speakers(np.concatenate([silence, first]), np.concatenate([second, silence]), Turn(gap, level))
    assert clip.dtype == np.float32
    assert len(clip) / RATE == pytest.approx(2 + 3 - MAX_OVERLAP, abs=0.001)
    assert overlap == pytest.approx(max(0, -gap), abs=0.001)

    def power(frequency, start, stop):
        piece = clip[round(start * RATE) : round(stop * RATE)].astype(np.float64)
        wave = np.exp(-2j * np.pi * frequency * np.arange(len(piece)) / RATE)
        return 2 * np.abs(np.mean(piece * wave)) ** 2

    start = 2 + gap
    alone = power(200, 0.1, 1.1)
    assert decibels(power(1000, start + 1, start + 1.5) / alone) == pytest.approx(level, abs=0.1)
    assert power(1000, 0.1, start - 0.1) < 1e-4 * alone
    assert power(200, 2.1, 3.1) < 1e-4 * alone
    if gap < 0:
        assert decibels(power(200, start + 0.1, 1.9) / alone) == pytest.approx(0, abs=0.1)
    if gap > 0:
        assert not clip[round(2.02 * RATE) : round((start - 0.02) * RATE)].any()


def test_length_and_cut_do_not_tell_how_many_speak():
    pieces = tone(1.7, 200), tone(1.1, 300)
    turns = [draw_turn(0, str(key), same_speaker) for key in range(50) for same_speaker in (True, False)]
    clips = [mix_speakers(*pieces, turn)[0] for turn in turns]
    assert len({len(clip) for clip in clips}) == 1
    assert all(np.abs(clip).max() <= PEAK for clip in clips)
    assert all(np.abs(clip[-RATE // 5 :]).max() > 0.05 for clip in clips), "every clip ends in speech"


def test_short_second_piece_is_still_heard():
    clip, _ = mix_speakers(tone(2, 200), tone(0.2, 1000), Turn(0.5, 0.0))
    assert np.abs(np.fft.rfft(clip[2 * RATE :])).sum() > 0 and np.abs(clip[2 * RATE :]).max() > 0.1
    with pytest.raises(ValueError, match="A piece of speech is silent"):
        mix_speakers(tone(2, 200), np.zeros(RATE, np.float32), Turn(0, 0))


def test_nobody_overlaps_with_himself():
    same, other = ([draw_turn(3, str(key), same) for key in range(400)] for same in (True, False))
    assert all(0 <= turn.gap <= 0.5 for turn in same)
    overlapping = [turn for turn in other if turn.gap < 0]
    assert 160 < len(overlapping) < 240 and min(turn.gap for turn in other) < -0.9
    assert [turn.level for turn in same] == [turn.level for turn in other], "levels are drawn alike"
    pauses = [(a.gap, b.gap) for a, b in zip(same, other, strict=True) if b.gap >= 0]
    assert all(a == b for a, b in pauses), "and so are pauses"

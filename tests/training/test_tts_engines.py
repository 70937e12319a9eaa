"""The engines and voices: what is claimed of them is counted, and heard."""

import numpy as np
import pytest

from speechverse.training.data import tts_engines
from speechverse.training.data.tts_engines import ENGINES, VOICES, Flite, Program, find_voice, installed_voices
from speechverse.training.data.voice_pool import group_timbres


TEXT = "It is quite late now, please set an alarm for seven and turn off all of the lights in the kitchen."
LANGUAGES = {
    "en": TEXT,
    "de": "Bitte stelle den Wecker auf sieben Uhr und mach das Licht in der Küche aus.",
    "es": "Por favor, pon la alarma a las siete y apaga la luz de la cocina.",
    "fr": "Mets le réveil à sept heures et éteins la lumière de la cuisine.",
    "it": "Metti la sveglia alle sette e spegni la luce della cucina.",
}


@pytest.fixture(params=ENGINES)
def name(request):
    engine = ENGINES[request.param]
    if not engine.version():
        pytest.skip(f"{request.param} is not installed: {engine.installer} {engine.package}")
    return request.param


def fundamental(wave: np.ndarray, rate: int) -> float:
    """Median f0 of the voiced frames, Hz: the lag of the largest autocorrelation."""
    length, window, lags = int(0.04 * rate), np.hanning(int(0.04 * rate)), slice(rate // 450, rate // 50)
    norm = np.correlate(window, window, "full")[length - 1 :]
    found = []
    for start in range(0, len(wave) - length, length // 2):
        frame = (wave[start : start + length] - wave[start : start + length].mean()) * window
        energy = frame @ frame
        if energy < 1e-3:
            continue
        correlation = np.correlate(frame, frame, "full")[length - 1 :] / np.maximum(norm, 0.05 * norm[0])
        peak = lags.start + int(correlation[lags].argmax())
        if correlation[peak] > 0.6 * correlation[0]:
            found.append(rate / peak)
    return float(np.median(found))


def test_timbres_are_counted_without_accents():
    english = [voice for voice in VOICES.values() if voice.language == "en"]
    pypi = [voice for voice in english if not issubclass(ENGINES[voice.engine], Program)]
    assert len(group_timbres(pypi)) >= 3
    assert len(group_timbres(english)) >= 8
    espeak = [voice for voice in VOICES.values() if voice.engine == "espeak-ng"]
    assert len(espeak) > 8 and len(group_timbres(espeak)) == 1


def test_voices_are_described():
    assert {"American", "British", "Scottish"} <= {voice.accent for voice in VOICES.values()}
    for name, voice in VOICES.items():
        assert voice.engine in ENGINES and voice.name == name
        assert voice.language in LANGUAGES and voice.gender in ("female", "male")
        assert (voice.accent is not None) == (voice.language == "en")


def test_every_voice_speaks(name):
    engine, waves = ENGINES[name](), {}
    for voice in VOICES.values():
        if voice.engine == name:
            wave = engine.speak(LANGUAGES[voice.language], voice.name.partition(":")[2], 1.0, 1.0)
            assert wave.dtype == np.float32 and wave.ndim == 1
            assert 2 < len(wave) / engine.sampling_rate < 9
            assert 0.1 < np.abs(wave).max() < 1
            waves[voice.name] = wave.tobytes()
    assert len(set(waves.values())) == len(waves)


def test_speed_is_what_was_asked(name):
    engine = ENGINES[name]()
    for voice in group_timbres(installed_voices("en")).values():
        if voice[0].engine == name:
            lengths = [
                len(engine.speak(TEXT, voice[0].name.partition(":")[2], speed, 1.0)) for speed in (0.8, 1, 1.25)
            ]
            assert lengths[0] / lengths[1] == pytest.approx(1.25, rel=0.1)
            assert lengths[2] / lengths[1] == pytest.approx(0.8, rel=0.1)


def test_natural_speed_is_the_programs_own(monkeypatch):
    """kal16 stretches by 1.1 by itself: a speed of 1 must not take that away."""
    if not Flite.version():
        pytest.skip("flite is not installed: apt-get install flite")
    asked = Flite().speak(TEXT, "kal16", 1.0, 1.0)
    monkeypatch.setattr(Flite, "command", lambda *_: (["-voice", "kal16", "-t", TEXT, "-o", "/dev/stdout"], b""))
    np.testing.assert_array_equal(asked, Flite().speak(TEXT, "kal16", 1.0, 1.0))


def test_pitch_is_what_was_asked(name):
    engine = ENGINES[name]()
    for voice in group_timbres(installed_voices("en")).values():
        if voice[0].engine == name and voice[0].pitched:
            local = voice[0].name.partition(":")[2]
            low, natural, high = (
                fundamental(engine.speak(TEXT, local, 1.0, pitch), engine.sampling_rate) for pitch in (0.8, 1.0, 1.25)
            )
            assert low / natural == pytest.approx(0.8, rel=0.06)
            assert high / natural == pytest.approx(1.25, rel=0.06)


def test_same_call_same_audio(name):
    if name == "nanotts":
        pytest.skip("nanotts repeats only in a process of its own; test_synthesize has that")
    engine = ENGINES[name]()
    voice = next(voice for voice in installed_voices("en") if voice.engine == name).name.partition(":")[2]
    waves = [engine.speak(TEXT, voice, 1.1, 1.0) for _ in range(2)]
    np.testing.assert_array_equal(*waves)


def test_nothing_is_said_where_there_is_nothing_to_say(name):
    engine = ENGINES[name]()
    voice = next(voice for voice in installed_voices("en") if voice.engine == name).name.partition(":")[2]
    for text in ("...", "你好", "🙂"):
        wave = engine.speak(text, voice, 1.0, 1.0)
        assert not wave.size or np.abs(wave).max() < 0.01


def test_markup_and_letters_beyond_ascii_are_spoken(name):
    engine = ENGINES[name]()
    voice = next(voice for voice in installed_voices("en") if voice.engine == name).name.partition(":")[2]
    lengths = {
        text: len(engine.speak(text, voice, 1.0, 1.0))
        for text in ("there", "<ignore>hello world</ignore> there", "[[hello world]] there", "a naïve café")
    }
    assert lengths["<ignore>hello world</ignore> there"] > 1.8 * lengths["there"]
    assert lengths["[[hello world]] there"] > 1.8 * lengths["there"]
    if name == "flite":
        assert lengths["a naïve café"] == len(engine.speak("a naive cafe", voice, 1.0, 1.0))


def test_missing_program_is_not_an_engine(monkeypatch):
    monkeypatch.setattr(tts_engines.shutil, "which", lambda program: None)
    assert {voice.engine for voice in installed_voices("en")} <= {"nanotts", "hibari"}


def test_failing_program_is_explained():
    class Broken(Program):
        package, sampling_rate = "false", 16_000

        def command(self, *_):
            return [], b""

    with pytest.raises(RuntimeError, match="false ended with code 1: no message"):
        Broken().speak("Hello.", "any", 1.0, 1.0)


def test_unknown_voice_names_those_of_the_engine():
    with pytest.raises(ValueError, match="`voices`: there is no voice 'flite:kal', choose from flite:kal16, .*slt.$"):
        find_voice("flite:kal", "`voices`")

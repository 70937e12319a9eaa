"""The offline text-to-speech engines and their voices.

A voice is named `engine:voice`, as in `flite:slt`. Two engines are packages on PyPI (py-nanotts, hibari-tts), two are
system programs that are used where they are found (`apt-get install flite espeak-ng`); none needs a network.

A *timbre* is who speaks, whatever the accent, rate or pitch: the accents of espeak-ng are one and the same synthetic
timbre. English has 3 timbres with PyPI alone and 8 with the two programs.
"""

import functools
import io
import re
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import soundfile


@dataclass(frozen=True)
class Voice:
    """
    A voice and what is known of it.

    Attributes:
        name (`str`): `engine:voice`.
        language (`str`): ISO 639-1 code.
        accent (`str`, *optional*): What the publisher calls it, "Scottish" say.
        gender (`str`, *optional*): "female" or "male".
        speaker (`str`, *optional*): Timbre within the engine, where voices share one.
        pitched (`bool`): Whether the engine can change its pitch.
    """

    name: str
    language: str
    accent: str | None
    gender: str | None
    speaker: str | None = None
    pitched: bool = True

    @property
    def engine(self) -> str:
        return self.name.partition(":")[0]

    @property
    def timbre(self) -> str:
        """Who speaks: equal for voices that differ in accent alone."""
        return f"{self.engine}:{self.speaker}" if self.speaker else self.name

    @property
    def speed_limits(self) -> tuple[float, float]:
        return ENGINES[self.engine].speed_limits

    @property
    def pitch_limits(self) -> tuple[float, float]:
        return ENGINES[self.engine].pitch_limits if self.pitched else (1.0, 1.0)


ESPEAK_VOICES = (
    ("en-us", "en", "American"),
    ("en-us-nyc", "en", "New York"),
    ("en-gb", "en", "British"),
    ("en-gb-x-rp", "en", "Received Pronunciation"),
    ("en-gb-scotland", "en", "Scottish"),
    ("en-gb-x-gbclan", "en", "Lancaster"),
    ("en-gb-x-gbcwmd", "en", "West Midlands"),
    ("en-029", "en", "Caribbean"),
    ("de", "de", None),
    ("es", "es", None),
    ("fr-fr", "fr", None),
    ("it", "it", None),
)

VOICES: dict[str, Voice] = {
    voice.name: voice
    for voice in (
        Voice("nanotts:en-US", "en", "American", "female"),
        Voice("nanotts:en-GB", "en", "British", "female"),
        Voice("nanotts:de-DE", "de", None, "female"),
        Voice("nanotts:es-ES", "es", None, "female"),
        Voice("nanotts:fr-FR", "fr", None, "female"),
        Voice("nanotts:it-IT", "it", None, "female"),
        Voice("hibari:heart", "en", "American", "female", pitched=False),  # its other voices need a download
        Voice("flite:kal16", "en", "American", "male"),  # `kal` is the same man at 8 kHz
        Voice("flite:awb", "en", "Scottish", "male"),
        Voice("flite:rms", "en", "American", "male", pitched=False),
        Voice("flite:slt", "en", "American", "female"),
        *(
            Voice(f"espeak-ng:{name}", language, accent, "male", speaker="formant")
            for name, language, accent in ESPEAK_VOICES
        ),
    )
}


def find_voice(name: str, where: str) -> Voice:
    """
    Looks a voice up by its name.

    Raises:
        ValueError: If there is none; `where` says who asked.
    """
    if not isinstance(name, str) or name not in VOICES:
        engine = str(name).partition(":")[0]
        known = [voice for voice in VOICES if voice.startswith(f"{engine}:")] or list(VOICES)
        raise ValueError(f"{where}: there is no voice {name!r}, choose from {', '.join(known)}.")
    return VOICES[name]


def installed_voices(language: str) -> list[Voice]:
    """Every voice of a language whose engine is there."""
    return [voice for voice in VOICES.values() if voice.language == language and ENGINES[voice.engine].version()]


def require_engine(voice: Voice) -> str:
    """
    Returns `name==version` of a voice's engine.

    Raises:
        ImportError: If the engine is not installed; the message says how to install it.
    """
    engine = ENGINES[voice.engine]
    version = engine.version()
    if not version:
        raise ImportError(f"The engine `{voice.engine}` is not installed: run `{engine.installer} {engine.package}`.")
    return f"{voice.engine}=={version}"


class Engine:
    """
    A text-to-speech engine. A new one is a subclass, a row of `ENGINES` and its rows of `VOICES`.

    Attributes:
        package (`str`): Name of the package to install.
        installer (`str`): Command that installs it.
        sampling_rate (`int`): Rate of what `speak` returns, in Hz.
        speed_limits (`tuple[float, float]`): Slowest and fastest tempo, 1 being the natural one.
        pitch_limits (`tuple[float, float]`): Lowest and highest pitch factor, 1 being the natural one.
    """

    package: str
    installer = "pip install"
    sampling_rate: int
    speed_limits: tuple[float, float]
    pitch_limits: tuple[float, float]

    @classmethod
    def version(cls) -> str | None:
        """The installed version, `None` if it is not installed."""
        try:
            return metadata.version(cls.package)
        except metadata.PackageNotFoundError:
            return None

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> np.ndarray:
        """
        Speaks a text with a voice, named without its engine.

        Returns:
            `np.ndarray`: `float32` mono audio of shape `(num_samples,)` in [-1, 1], empty if there is nothing to say.
        """
        raise NotImplementedError


class NanoTTS(Engine):
    """SVOX Pico: six languages, one voice each."""

    package = "py-nanotts"
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
    """A small neural English voice."""

    package = "hibari-tts"
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


class Program(Engine):
    """An engine that is a system program: one call speaks one text, and writes a WAV file to its standard output."""

    installer = "apt-get install"

    @classmethod
    def version(cls) -> str | None:
        return _program_version(cls.package) if shutil.which(cls.package) else None

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> np.ndarray:
        if not _can_be_read(text):
            return np.zeros(0, np.float32)
        arguments, stdin = self.command(text, voice, speed, pitch)
        process = subprocess.run([self.package, *arguments], input=stdin, capture_output=True)
        if process.returncode or not process.stdout:
            message = process.stderr.decode(errors="replace").strip() or "no message"
            raise RuntimeError(f"{self.package} ended with code {process.returncode}: {message}")
        wave, rate = soundfile.read(io.BytesIO(process.stdout), dtype="float32")
        if rate != self.sampling_rate:
            raise RuntimeError(f"{self.package} spoke at {rate} Hz, not at {self.sampling_rate} Hz")
        return wave

    def command(self, text: str, voice: str, speed: float, pitch: float) -> tuple[list[str], bytes]:
        """The program's arguments and its standard input."""
        raise NotImplementedError


class Flite(Program):
    """CMU Flite: the recorded voices of four people."""

    package = "flite"
    sampling_rate = 16_000
    speed_limits = (0.5, 2.0)
    pitch_limits = (0.5, 2.0)
    natural_stretch = {"kal16": 1.1}  # duration_stretch that a voice sets itself; 1 for the others

    def command(self, text: str, voice: str, speed: float, pitch: float) -> tuple[list[str], bytes]:
        stretch = self.natural_stretch.get(voice, 1.0) / speed
        settings = ["--setf", f"duration_stretch={stretch:.4f}", "--setf", f"f0_shift={pitch:.4f}"]
        return ["-voice", voice, *settings, "-t", _to_ascii(text), "-o", "/dev/stdout"], b""


class EspeakNG(Program):
    """eSpeak NG: one synthetic timbre, many accents and languages."""

    package = "espeak-ng"
    sampling_rate = 22_050
    speed_limits = (0.5, 2.5)
    pitch_limits = (0.7, 1.6)
    natural_speed = 175  # words a minute
    # Median f0 of a sentence in English relative to that of the default pitch, 50, by the value of `-p`.
    pitch_settings = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
    pitch_factors = (0.66, 0.71, 0.76, 0.83, 0.91, 1.0, 1.11, 1.23, 1.37, 1.54, 1.70)

    def command(self, text: str, voice: str, speed: float, pitch: float) -> tuple[list[str], bytes]:
        words_a_minute = round(self.natural_speed * speed)
        setting = round(np.interp(pitch, self.pitch_factors, self.pitch_settings))
        volume = 60  # of 200; the default, 100, clips some accents
        options = ["-v", voice, "-s", str(words_a_minute), "-p", str(setting), "-a", str(volume), "-b", "1"]
        text = text.replace("[[", "[ [")  # else what follows is read as phonemes
        return [*options, "--stdin", "--stdout"], text.encode()


ENGINES: dict[str, type[Engine]] = {"nanotts": NanoTTS, "hibari": Hibari, "flite": Flite, "espeak-ng": EspeakNG}


@functools.cache
def _program_version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    number = re.search(r"\d+\.\d+(\.\d+)*", shown)
    return number[0] if number else "unknown"


def _can_be_read(text: str) -> bool:
    """Whether there is a Latin letter or a digit. The programs say "Chinese letter", or click, where there is none."""
    return any(symbol.isascii() and symbol.isalnum() for symbol in unicodedata.normalize("NFKD", text))


def _to_ascii(text: str) -> str:
    """Flite reads ASCII alone and drops the rest: "café" would be spoken as "caf", "don’t" as "dont"."""
    typography = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": ", "})
    return unicodedata.normalize("NFKD", text.translate(typography)).encode("ascii", "ignore").decode()

"""The demo's recordings, and what it asks about them. All sentences and answers are ours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechverse.processing.audio_speechverse import load_audio
from speechverse.training.data.generated_noise import generate_noise
from speechverse.training.data.mixing import SAMPLING_RATE, Turn, mix_speakers
from speechverse.training.data.overlaps import plain_text
from speechverse.training.data.tts_engines import ENGINES, find_voice, require_engine


BRITISH, AMERICAN = "nanotts:en-GB", "hibari:heart"  # of two packages; the published model never heard them
SPOKEN = {  # recording -> who says what in it; two lines follow each other
    "weather": [(BRITISH, "Will it rain in London tomorrow?")],
    "music": [(AMERICAN, "Play some jazz in the kitchen.")],
    "children": [(BRITISH, "Two children are playing in the park.")],
    "dog": [(AMERICAN, "A dog runs through the snow.")],
    "dialogue": [(BRITISH, "A man rides a bike on the street."), (AMERICAN, "A woman reads a book on a bench.")],
}
INTENTS = ["weather_query", "play_music", "calendar_set", "news_query"]


@dataclass(frozen=True)
class Question:
    """One call of the pipeline, and the answer that is right.

    Args:
        recording (`str`): name of a recording that [`record`] makes.
        call (`dict`): what is asked: `instruction` or `task`, and what the task asks for.
        truth: the right answer, as the pipeline's `answer` gives it.
    """

    recording: str
    call: dict
    truth: object


QUESTIONS = [
    Question("weather", {"task": "asr"}, "Will it rain in London tomorrow?"),
    Question("children", {"task": "st", "language": "German"}, "Zwei Kinder spielen im Park."),
    Question("dog", {"task": "st", "language": "French"}, "Un chien court dans la neige."),
    Question("weather", {"task": "ic", "labels": INTENTS}, "weather_query"),
    Question(
        "weather",
        {"task": "sf", "labels": ["place_name", "date", "person"]},
        [{"label": "place_name", "value": "London"}, {"label": "date", "value": "tomorrow"}],
    ),
    Question("children", {"task": "kwe"}, ["children", "playing", "park"]),
    Question("dog", {"task": "kws", "keyword": "snow"}, "yes"),
    Question("dog", {"task": "kws", "keyword": "guitar"}, "no"),
    Question("music", {"task": "er"}, "neutral"),
    Question("music", {"task": "asc"}, "neutral"),
    Question("weather", {"task": "ac", "labels": ["British", "American"]}, "British"),
    Question("music", {"task": "ac", "labels": ["British", "American"]}, "American"),
    Question("dog", {"task": "sc"}, "one"),
    Question("dialogue", {"task": "sc"}, "two"),
    Question("music", {"task": "sns"}, "speech"),
    Question("noise", {"task": "sns"}, "not speech"),
    Question(
        "music",
        {"task": ["asr", "ic"], "labels": {"ic": INTENTS}},
        {"asr": "Play some jazz in the kitchen.", "ic": "play_music"},
    ),
    Question("weather", {"instruction": "Which city does the speaker ask about?"}, "London"),
]


def record(folder: Path) -> dict[str, Path]:
    """Speaks the sentences, adds a noise that nobody speaks in, and writes all as WAV files, 16 kHz mono.

    Returns:
        recording -> its file.

    Raises:
        ImportError: if a speech engine is not installed; the message says how to install it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waves = {name: _join([speak(text, voice) for voice, text in lines]) for name, lines in SPOKEN.items()}
    waves["noise"] = generate_noise("gusts", 3.0, seed=0, key="demo")
    files = {name: folder / f"{name}.wav" for name in waves}
    for name, file in files.items():
        soundfile.write(file, waves[name], SAMPLING_RATE)
    return files


def speak(text: str, voice: str) -> np.ndarray:
    """A sentence in a voice, `engine:voice`: float32 of shape `(samples,)`, 16 kHz."""
    require_engine(find_voice(voice, "the demo"))
    engine, _, name = voice.partition(":")
    speaker = ENGINES[engine]()
    return load_audio(speaker.speak(text, name, speed=1.0, pitch=1.0), SAMPLING_RATE, speaker.sampling_rate)


def _join(pieces: list[np.ndarray]) -> np.ndarray:
    if len(pieces) == 1:
        return pieces[0]
    clip, _ = mix_speakers(*pieces, Turn(gap=0.3, level=0.0))
    return clip


def in_words(call: dict, tasks) -> str:
    """What the model is asked, as the checkpoint's tasks ([`TaskBank`]) put it."""
    if "instruction" in call:
        return call["instruction"]
    return tasks.find(call["task"]).instruction(**{name: value for name, value in call.items() if name != "task"})


def agree(answer, truth) -> bool:
    """Whether two answers are the same but for case, punctuation, and the order of lists."""
    return _plain(answer) == _plain(truth)


def _plain(answer):
    if isinstance(answer, str):
        return plain_text(answer)
    if isinstance(answer, list):
        return sorted(map(_plain, answer), key=str)
    if isinstance(answer, dict):
        return {name: _plain(answer[name]) for name in sorted(answer)}
    return answer


def as_text(answer) -> str:
    """An answer in one line, as models write it."""
    if isinstance(answer, dict) and answer.keys() == {"label", "value"}:
        return f"{answer['label']} = {answer['value']}"
    if isinstance(answer, dict):
        return "; ".join(f"{name}: {as_text(value)}" for name, value in answer.items())
    if isinstance(answer, list):
        return ", ".join(map(as_text, answer)) or "none"
    return str(answer)

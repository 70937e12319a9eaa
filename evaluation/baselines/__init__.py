"""What a SpeechVerse model is compared with, and how whoever answers a suite is made of the command line's words."""

from pathlib import Path

from transformers import AutoConfig

from ..systems import SpeechVerseSystem, System
from .classifier_system import ClassifierSystem
from .keyword_search import KeywordSearchSystem
from .speech_recognition import AsrSystem
from .text_llm import CascadeSystem, TextLlmSystem


SYSTEMS: dict[str, type[System]] = {
    system.kind: system
    for system in (SpeechVerseSystem, AsrSystem, TextLlmSystem, CascadeSystem, KeywordSearchSystem, ClassifierSystem)
}
NEEDS = {kind: ("model",) for kind in SYSTEMS} | {"cascade": ("model", "asr"), "keyword_search": ("asr",)}


def load_system(
    kind: str, model: str | None = None, asr: str | None = None, folder: str | Path | None = None
) -> System:
    """Makes what answers a suite, without its weights.

    | kind | what answers |
    |---|---|
    | `speechverse` | `model`, a SpeechVerse model |
    | `asr` | `model`, a speech recogniser with its own decoder |
    | `text` | `model`, an LLM that learned from text, about the true words: the oracle |
    | `cascade` | the same about what `asr` has heard |
    | `keyword_search` | whether a keyword is a substring of what `asr` has heard |
    | `classifier` | `model`, a folder of classifiers, one for each task |

    Args:
        kind (`str`): one of `SYSTEMS`.
        model (`str`, *optional*): checkpoint folder or Hub id.
        asr (`str`, *optional*): the same, of the speech recogniser of a cascade or of keyword search: a SpeechVerse
            checkpoint, or any of transformers.
        folder (`str` or `Path`, *optional*): where what `asr` hears is kept; see [`System`].

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if something that this kind needs is not given, or it takes no such thing, or a model is of another kind.
    """
    if kind not in SYSTEMS:
        raise ValueError(f"There is no system {kind!r}; there are {', '.join(SYSTEMS)}.")
    given = {"model": model, "asr": asr}
    for name, value in given.items():
        if name in NEEDS[kind] and value is None:
            raise ValueError(f"--system {kind} needs --{name}.")
        if name not in NEEDS[kind] and value is not None:
            raise ValueError(f"--system {kind} takes no --{name}.")
    system = SYSTEMS[kind](*(given[name] for name in NEEDS[kind]))
    if kind == "speechverse" and getattr(AutoConfig.from_pretrained(model), "input_modality", None) == "text":
        raise ValueError(f"{model} learned from text alone: ask it by --system text or cascade.")
    system.folder = None if folder is None else Path(folder)
    return system

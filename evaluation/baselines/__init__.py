"""What a SpeechVerse model is compared with, and how whoever answers a suite is made of the command line's words."""

from ..systems import SpeechVerseSystem, System


SYSTEMS = ("speechverse",)


def load_system(kind: str, *, model: str | None = None, asr: str | None = None) -> System:
    """Makes what answers a suite, without its weights.

    Args:
        kind (`str`): one of `SYSTEMS`.
        model (`str`, *optional*): checkpoint folder or Hub id.
        asr (`str`, *optional*): the same, of the speech recogniser of a cascade or of keyword search.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if something that this kind needs is not given.
    """
    if model is None:
        raise ValueError(f"--system {kind} needs --model.")
    return SpeechVerseSystem(model)

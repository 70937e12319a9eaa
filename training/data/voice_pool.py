"""Which voices may speak which line: the voices of training, and those held out for testing."""

from collections.abc import Iterable, Sequence


if __package__:
    from .tts_engines import VOICES, Voice, find_voice, installed_voices, require_engine
else:  # beside a script
    from tts_engines import VOICES, Voice, find_voice, installed_voices, require_engine

TEST_SPLIT = "test"
TEST_VOICES = ("held-out", "seen", "all")


class VoicePool:
    """
    The voices to draw from, by the split of a line.

    A line of any split but "test", or of none, is never spoken by a held-out voice, nor by another voice of the same
    timbre. Lines of the split "test" are spoken as `test_voices` says.

    Args:
        voices (`list[str]`, *optional*):
            Names of the voices to draw from; defaults to every installed voice of `language`.
        language (`str`, *optional*, defaults to `"en"`):
            ISO 639-1 code of the default voices.
        held_out (`list[str]`, *optional*):
            Names of the voices that training never hears.
        test_voices (`str`, *optional*, defaults to `"held-out"`):
            Who speaks the lines of the split "test": the voices held out (where there are any), the "seen" ones of
            training, or "all" of both.

    Raises:
        ValueError: If a voice is unknown, or none is left to train with.
        ImportError: If the engine of a voice is not installed.
    """

    def __init__(
        self,
        voices: Sequence[str] | None = None,
        language: str = "en",
        held_out: Sequence[str] = (),
        test_voices: str = "held-out",
    ):
        if test_voices not in TEST_VOICES:
            raise ValueError(f"`test_voices` is {test_voices!r}: choose one of {', '.join(TEST_VOICES)}.")
        languages = {voice.language for voice in VOICES.values()}
        if language not in languages:
            raise ValueError(f"`language` is {language!r}: choose one of {', '.join(sorted(languages))}.")
        chosen = [find_voice(name, "`voices`") for name in voices] if voices else installed_voices(language)
        self.held_out = [find_voice(name, "`held_out_voices`") for name in held_out]
        self._versions = {}
        for voice in (*chosen, *self.held_out):
            self.engine_of(voice)
        self.seen = [voice for voice in chosen if not self.is_held_out(voice)]
        if chosen and not self.seen:
            raise ValueError("`held_out_voices` leaves no voice to train with: hold out fewer, or add voices.")
        self.test_voices = test_voices

    def engine_of(self, voice: Voice) -> str:
        """`name==version` of a voice's engine, asked for once; see [`require_engine`]."""
        if voice.engine not in self._versions:
            self._versions[voice.engine] = require_engine(voice)
        return self._versions[voice.engine]

    def is_held_out(self, voice: Voice) -> bool:
        """Whether a voice is kept from training: its timbre is what is held out."""
        return voice.timbre in {held_out.timbre for held_out in self.held_out}

    def of_split(self, split) -> list[Voice]:
        """The voices that may be drawn for a line of a split."""
        if split != TEST_SPLIT or not self.held_out or self.test_voices == "seen":
            return self.seen
        return self.held_out if self.test_voices == "held-out" else [*self.seen, *self.held_out]

    def check(self, voice: Voice, split, where: str) -> None:
        """
        Checks a voice that a line fixes.

        Raises:
            ValueError: If the voices held out, or those of training, may not speak that line.
        """
        if not self.held_out:
            return
        held_out = self.is_held_out(voice)
        if held_out and (split != TEST_SPLIT or self.test_voices == "seen"):
            raise ValueError(f"{where}: {voice.name} is held out from the split {split!r}, choose another voice.")
        if not held_out and split == TEST_SPLIT and self.test_voices == "held-out":
            raise ValueError(f"{where}: {voice.name} is not held out, as test_voices='held-out' wants it in a test.")


def group_timbres(voices: Iterable[Voice]) -> dict[str, list[Voice]]:
    """The voices of each timbre, in the order of first appearance."""
    groups = {}
    for voice in voices:
        groups.setdefault(voice.timbre, []).append(voice)
    return groups

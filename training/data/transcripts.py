"""Transcripts in place of recordings: how a text LLM is asked what a SpeechVerse model is asked."""

from .sample import Sample


def ask_about_text(transcript: str, instruction: str, placeholder: str = "<audio>") -> str:
    """The instruction about a transcript: it stands in quotes where the recording would, which is before the instruction,
    or wherever the placeholder stands in it.

    ```python
    >>> ask_about_text("wake me at six", "What does the speaker want?")
    '"wake me at six" What does the speaker want?'
    ```

    Training with `input_modality: text` and the baselines that ask such a model both use it.

    Args:
        transcript (`str`): the words of the recording, as its corpus or a speech recogniser writes them.
        instruction (`str`): the instruction.
        placeholder (`str`, *optional*, defaults to `"<audio>"`): stands for the recording in an instruction.
    """
    quoted = f'"{transcript}"'
    return instruction.replace(placeholder, quoted) if placeholder in instruction else f"{quoted} {instruction}"


def fault_of_transcript(sample: Sample, processor=None) -> str | None:
    """Why a sample cannot be learned from its transcript; `None` if it can.

    Args:
        sample ([`Sample`]): the sample.
        processor ([`SpeechVerseProcessor`], *optional*): knows the placeholder of recordings.
    """
    if not (sample.transcript or "").strip():
        return "no transcript: its corpus has no words for this recording"
    if processor is not None and processor.audio_token in sample.transcript:
        return f"placeholder in transcript: it holds {processor.audio_token}, which stands for a recording"
    return None

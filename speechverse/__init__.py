"""SpeechVerse: ask a frozen speech encoder and a frozen text LLM anything about a recording.

Importing this package registers SpeechVerse with transformers, so that `AutoConfig`, `AutoModel`, `AutoProcessor` and
`pipeline("speech-instruction")` know it.
"""

import os as _os


_checkout = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if _os.path.isdir(_os.path.join(_checkout, "modeling_speechverse")):
    __path__.append(_checkout)  # in a source checkout the sub-packages are siblings of this folder

from .modeling_speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration, SpeechVerseModel  # noqa: E402
from .processing import SpeechInstructionPipeline, SpeechVerseProcessor, Task, TaskBank  # noqa: E402
from .version import __version__  # noqa: E402


__all__ = [
    "SpeechInstructionPipeline",
    "SpeechVerseConfig",
    "SpeechVerseForConditionalGeneration",
    "SpeechVerseModel",
    "SpeechVerseProcessor",
    "Task",
    "TaskBank",
    "__version__",
]

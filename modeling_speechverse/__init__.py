"""What the network is: configuration, audio encoders, model. Knows transformers and peft; nothing of tasks or training."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
)

from .configuration_speechverse import SpeechVerseConfig
from .modeling_speechverse import SpeechVerseForConditionalGeneration, SpeechVerseModel


AutoConfig.register("speechverse", SpeechVerseConfig, exist_ok=True)
for _auto_class in (AutoModel, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq):
    _auto_class.register(SpeechVerseConfig, SpeechVerseForConditionalGeneration, exist_ok=True)

__all__ = ["SpeechVerseConfig", "SpeechVerseForConditionalGeneration", "SpeechVerseModel"]

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
# A saved checkpoint then holds these files, and works where the package is not installed.
SpeechVerseConfig.register_for_auto_class()
SpeechVerseModel.register_for_auto_class("AutoModel")

__all__ = ["SpeechVerseConfig", "SpeechVerseForConditionalGeneration", "SpeechVerseModel"]

"""transformers' own common tests of a processor, on those of tiny SpeechVerse models. A new pair is a new class."""

import unittest
from functools import cache

import numpy as np
import pytest
from tiny_models import noise, tiny_feature_extractor, tiny_model, tiny_tokenizer
from transformers_common.upstream import NotFetched, upstream_module

from speechverse import SpeechVerseProcessor


try:
    upstream = upstream_module("test_processing_common")
except NotFetched as error:
    pytest.skip(str(error), allow_module_level=True)


TAKES_INSTRUCTIONS = "The processor takes instructions, not conversations: the LLM's chat template knows no audio."


class SpeechVerseProcessorTest(upstream.ProcessorTesterMixin):
    processor_class = SpeechVerseProcessor
    audio: str
    text: str

    @classmethod
    def _setup_feature_extractor(cls):
        return tiny_feature_extractor(cls.audio)

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer(cls.text)

    @classmethod
    @cache
    def prepare_processor_dict(cls):
        model = tiny_model(cls.audio, cls.text)
        return {
            "encoder_convolutions": [list(convolution) for convolution in model.encoder_convolutions],
            "projector_convolutions": [list(convolution) for convolution in model.projector_convolutions],
            "max_audio_steps": model.audio_family.max_input_length,
            "is_encoder_decoder": model.config.is_encoder_decoder,
        }

    def prepare_audio_inputs(self, batch_size: int | None = None):
        recording = {"array": np.asarray(noise(0.5)), "sampling_rate": 16_000}
        return [recording] * (batch_size or 1)

    @unittest.skip("The test gives samples without their rate, which the processor refuses to guess.")
    def test_subprocessor_defaults_3_audio(self):
        pass


class TestWavLMAndT5(SpeechVerseProcessorTest, unittest.TestCase):
    audio, text = "wavlm", "t5"


class TestWhisperAndT5(SpeechVerseProcessorTest, unittest.TestCase):
    audio, text = "whisper", "t5"


class TestWavLMAndLlama(SpeechVerseProcessorTest, unittest.TestCase):
    audio, text = "wavlm", "llama"

    # What does not apply to a chat model.

    @unittest.skip("The processor puts an instruction into the LLM's chat template, the tokenizer alone does not.")
    def test_subprocessor_defaults_0_text(self):
        pass

    def _test_apply_chat_template(self, *args, **kwargs):
        self.skipTest(TAKES_INSTRUCTIONS)

    @unittest.skip(TAKES_INSTRUCTIONS)
    def test_apply_chat_template_assistant_mask(self):
        pass

    @unittest.skip(TAKES_INSTRUCTIONS)
    def test_chat_template_audio_sampling_rate(self):
        pass

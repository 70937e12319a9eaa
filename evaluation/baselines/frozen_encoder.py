"""A speech encoder without an LLM, as the classifiers listen through it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, PreTrainedTokenizerFast

from ...modeling_speechverse.audio_encoders import Convolution, audio_encoder_family
from ...modeling_speechverse.base_checkpoints import describe_base, resolve_base
from ...modeling_speechverse.configuration_speechverse import SpeechVerseConfig, choose_strides
from ...modeling_speechverse.frozen_parts import FrozenPartsLoader
from ...processing.processing_speechverse import SpeechVerseProcessor
from ...training.data.feature_cache import EncoderInputs, run_encoder


class FrozenEncoder:
    """A speech encoder with what [`FeatureCache`] asks of a model, so that it finds what was cached to train SpeechVerse.

    Args:
        base (`str`): Hub id, folder, or name in `$SPEECHVERSE_FOUNDATIONS` of the encoder.
        revision (`str`, *optional*): on the Hub.
        dtype (`str`, *optional*, defaults to `"auto"`): of its weights.

    Raises:
        FileNotFoundError: if it is not found.
        ValueError: if SpeechVerse does not know its kind.
    """

    def __init__(self, base: str, revision: str | None = None, dtype: str = "auto"):
        self.folder = resolve_base(base, revision=revision)
        self.config = SpeechVerseConfig(
            audio_config=AutoConfig.from_pretrained(self.folder), audio_base=describe_base(base, self.folder, revision)
        )
        loader = FrozenPartsLoader(
            self.config,
            from_whole=False,
            dtype=dtype,
            attn_implementation={},
            quantization_config=None,
            placement=None,
            offload_folder=None,
        )
        self.audio_tower: nn.Module = loader.audio_tower(self.folder).requires_grad_(False).eval()
        self.config.audio_config = self.audio_tower.config
        self.audio_family = audio_encoder_family(self.audio_tower.config)
        self.processor = encoder_processor(self.folder)

    @property
    def device(self):
        return self.audio_tower.device

    def to(self, device) -> "FrozenEncoder":
        self.audio_tower.to(device)
        return self

    def encode(self, audios: list, autocast_dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        """What [`FeatureCache`] would hold of recordings: `(frames, hidden_size)` each, bf16, on the CPU.

        Args:
            audios (`list`): paths or [`Recording`]s.
            autocast_dtype (`torch.dtype`, *optional*): what the encoder computes in.
        """
        inputs = EncoderInputs([audios], self.processor)[0]
        rows = run_encoder(self, self.processor, inputs, autocast_dtype)
        return [features.to("cpu", torch.bfloat16) for features in rows]

    def processor_of_run(self, arguments) -> SpeechVerseProcessor:
        """The processor that a SpeechVerse model of a configuration would have, made without its LLM: what it makes of
        samples is the same.

        Args:
            arguments ([`ModelArguments`]): of the configuration.
        """
        text_folder = resolve_base(arguments.text_base, revision=arguments.text_revision)
        return encoder_processor(
            self.folder,
            AutoTokenizer.from_pretrained(text_folder),
            arguments.projector_kernel_sizes,
            arguments.projector_strides,
            bool(AutoConfig.from_pretrained(text_folder).is_encoder_decoder),
        )


def encoder_processor(
    folder: Path,
    tokenizer=None,
    kernel_sizes: list[int] | None = None,
    strides: list[int] | None = None,
    is_encoder_decoder: bool = True,
) -> SpeechVerseProcessor:
    """A processor that reads recordings for an encoder, made without its weights.

    Args:
        folder (`Path`): of the encoder.
        tokenizer (*optional*): of some LLM; by default one that knows no words.
        kernel_sizes, strides, is_encoder_decoder: as in [`SpeechVerseConfig`], of that LLM and the projector before it.

    Raises:
        ValueError: if SpeechVerse does not know this kind of encoder.
    """
    config = SpeechVerseConfig(audio_config=AutoConfig.from_pretrained(folder))
    family = audio_encoder_family(config.audio_config)
    kernel_sizes = kernel_sizes or config.projector_kernel_sizes
    strides = strides or choose_strides(family.frame_rate, len(kernel_sizes))
    return SpeechVerseProcessor(
        AutoFeatureExtractor.from_pretrained(folder),
        tokenizer or _tokenizer_without_words(),
        encoder_convolutions=family.convolutions,
        projector_convolutions=[Convolution(k, s, k // 2) for k, s in zip(kernel_sizes, strides, strict=True)],
        max_audio_steps=family.max_input_length,
        is_encoder_decoder=is_encoder_decoder,
    )


def _tokenizer_without_words() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")

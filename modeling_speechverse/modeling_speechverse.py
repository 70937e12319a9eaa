"""SpeechVerse: a frozen speech encoder, a frozen LLM, and the small part that learns to join them.

Das et al., "SpeechVerse: A Large-scale Generalizable Audio Language Model", arXiv 2405.08295.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import align_module_device
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging

from .adapter_checkpoints import DEFAULT_ADAPTER, AdapterCheckpointMixin
from .audio_encoders import Convolution, audio_encoder_family, length_mask, output_lengths
from .base_checkpoints import HUB_ARGUMENTS, describe_base, resolve_base
from .configuration_speechverse import SpeechVerseConfig, choose_strides
from .frozen_parts import language_model_class
from .generation_speechverse import (
    ConstraintLogitsProcessor,
    constrain_generation_config,
    merge_generation_config,
)
from .hint_biasing import DEFAULT_HINT_BONUS, HintLogitsProcessor
from .label_scoring import score_sequences


logger = logging.get_logger(__name__)

AUDIO_TOKEN = "<audio>"


@dataclass
class SpeechVerseAudioFeatures(BaseModelOutputWithPooling):
    """What [`SpeechVerseModel.get_audio_features`] returns.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(num_audios, frames, audio hidden_size)`):
            The encoder's last hidden state, or the learned mix of its layers.
        pooler_output (`torch.FloatTensor` of shape `(num_audios, projected frames, text hidden_size)`):
            The projected frames, at about 12.5 Hz; beyond an audio's end they mean nothing.
        attention_mask (`torch.BoolTensor` of shape `(num_audios, projected frames)`):
            True on the projected frames that are real.
        last_hidden_state_mask (`torch.BoolTensor` of shape `(num_audios, frames)`):
            True on the encoder's frames that are real.
        hidden_states, attentions (`tuple[torch.FloatTensor]`):
            The encoder's own, where they were asked for.
    """

    attention_mask: torch.BoolTensor | None = None
    last_hidden_state_mask: torch.BoolTensor | None = None


@dataclass
class SpeechVerseModelOutput(ModelOutput):
    """Audio and text, embedded for the LLM.

    Args:
        inputs_embeds (`torch.FloatTensor` of shape `(batch, length, text hidden_size)`):
            Token embeddings, with the projected audio frames where the audio tokens stand.
        attention_mask (`torch.LongTensor` of shape `(batch, length)`):
            1 on real positions.
        audio_embeds (`torch.FloatTensor` of shape `(num_audios, projected frames, text hidden_size)`):
            The projected frames; `None` without audio.
    """

    inputs_embeds: torch.FloatTensor | None = None
    attention_mask: torch.LongTensor | None = None
    audio_embeds: torch.FloatTensor | None = None


class SpeechVerseLayerMix(nn.Module):
    """The learned mix of an encoder's layers, 1/L * sum_l w_l h_l with free scalars w_l (section 2.1 of the paper).

    The layers' outputs are added up while the encoder runs; they never stand beside each other in one tensor.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_layers))

    def forward(self, hidden_states: torch.Tensor, index: int) -> torch.Tensor:
        """What layer `index` adds to the mix, in fp32: `(batch, frames, hidden_size)`."""
        hidden_states = hidden_states.to(self.weights.device, torch.float32)
        return self.weights[index].float() / len(self.weights) * hidden_states

    @contextmanager
    def listen(self, layers: nn.ModuleList):
        """While the context is open, adds up what `layers` put out; its `hidden_states` then hold the mix, in fp32."""
        mixed = BaseModelOutputWithPooling()
        mix_learns = torch.is_grad_enabled()

        def add_layer(index):
            def hook(module, args, output):
                hidden_states = output[0] if isinstance(output, tuple) else output
                with torch.set_grad_enabled(mix_learns):
                    term = self(hidden_states, index)
                    mixed.hidden_states = term if index == 0 else mixed.hidden_states + term

            return hook

        hooks = [layer.register_forward_hook(add_layer(index)) for index, layer in enumerate(layers)]
        try:
            yield mixed
        finally:
            for hook in hooks:
                hook.remove()


class SpeechVerseDownsamplerBlock(nn.Module):
    """Conv1d over time, then LayerNorm over channels."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.geometry = Convolution(kernel_size, stride, kernel_size // 2)
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, hidden_states, lengths):
        """`(batch, frames, in_channels)` with `lengths` real frames -> `(batch, frames / stride, out_channels)`."""
        # What lies beyond a row's end must be the zeros that the convolution pads a single recording with.
        mask = length_mask(lengths, hidden_states.shape[1])
        hidden_states = hidden_states.masked_fill(~mask[..., None], 0.0).to(self.conv.weight.dtype)
        hidden_states = self.norm(self.conv(hidden_states.transpose(1, 2)).transpose(1, 2))
        return hidden_states, output_lengths(lengths, [self.geometry])


class SpeechVerseMultiModalProjector(nn.Module):
    """Layer mix (where it is learned) and the downsampler that brings the frames to the LLM's width and pace."""

    def __init__(self, config: SpeechVerseConfig, num_layers: int):
        super().__init__()
        self.layer_mix = SpeechVerseLayerMix(num_layers) if config.layer_mix == "learned" else None
        width = config.text_config.hidden_size
        widths = [config.audio_config.hidden_size] + [width] * len(config.projector_strides)
        shapes = zip(widths, widths[1:], config.projector_kernel_sizes, config.projector_strides, strict=False)
        self.blocks = nn.ModuleList(SpeechVerseDownsamplerBlock(*shape) for shape in shapes)

    def forward(self, hidden_states, lengths):
        """`(batch, frames, audio width)` -> `(batch, projected frames, text width)`, with the lengths of either."""
        for block in self.blocks:
            hidden_states, lengths = block(hidden_states, lengths)
        return hidden_states, lengths


class SpeechVersePreTrainedModel(PreTrainedModel):
    config_class = SpeechVerseConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SpeechVerseLayerMix):
            init.ones_(module.weights)


class SpeechVerseModel(AdapterCheckpointMixin, SpeechVersePreTrainedModel):
    """Turns audio and text into one sequence of embeddings for the LLM.

    Args:
        config ([`SpeechVerseConfig`]): the configuration.
        audio_tower (`nn.Module`, *optional*): the speech encoder with its weights; by default it is built at random.
        language_model (`PreTrainedModel`, *optional*): the LLM with its weights; by default it is built at random.
    """

    def __init__(self, config: SpeechVerseConfig, audio_tower=None, language_model=None):
        super().__init__(config)
        self.base_folders = None  # where the bases were found on this machine; `from_foundations` knows
        self.audio_family = audio_encoder_family(config.audio_config)
        if config.projector_strides is None:
            config.projector_strides = choose_strides(self.audio_family.frame_rate, len(config.projector_kernel_sizes))
        self.audio_tower = self.audio_family.build() if audio_tower is None else audio_tower
        if language_model is None:
            language_model = language_model_class(config.text_config).from_config(config.text_config)
        self.language_model = language_model
        layers = self.audio_family.layers_of(self.audio_tower)
        self.multi_modal_projector = SpeechVerseMultiModalProjector(config, len(layers))
        self._no_split_modules = {type(layers[0]).__name__, "SpeechVerseMultiModalProjector"}
        self.post_init()
        self._scale_projector_to_embeddings()
        if config.lora_config is not None:  # after post_init, which would draw LoRA's B anew
            inject_adapter_in_model(LoraConfig(**config.lora_config), self.language_model, DEFAULT_ADAPTER)
        self._start_with_adapter(DEFAULT_ADAPTER)

    @classmethod
    def from_foundations(
        cls,
        audio_base: str,
        text_base: str,
        *,
        layer_mix: str = "last",
        lora_rank: int | None = 16,
        lora_alpha: int | None = None,
        lora_dropout: float = 0.0,
        lora_target_modules: list[str] | None = None,
        projector_kernel_sizes: list[int] | None = None,
        projector_strides: list[int] | None = None,
        freeze_audio_tower: bool = True,
        input_modality: str = "audio",
        audio_revision: str | None = None,
        text_revision: str | None = None,
        **kwargs,
    ):
        """Joins two pretrained models by a projector and LoRA that have yet to learn.

        Args:
            audio_base (`str`): Hub id, folder, or name in `$SPEECHVERSE_FOUNDATIONS` of the speech encoder.
            text_base (`str`): the same for the LLM.
            layer_mix (`str`, *optional*, defaults to `"last"`): see [`SpeechVerseConfig`].
            lora_rank (`int`, *optional*, defaults to 16): `None` or 0 leaves LoRA out.
            lora_alpha (`int`, *optional*, defaults to twice the rank): the paper does not give it.
            lora_dropout (`float`, *optional*, defaults to 0): dropout before LoRA's A.
            lora_target_modules (`list[str]`, *optional*): by default the query and value projections of every
                attention, as peft knows them for the LLM.
            projector_kernel_sizes, projector_strides, freeze_audio_tower, input_modality: see [`SpeechVerseConfig`].
            audio_revision, text_revision (`str`, *optional*): Hub revisions.
            **kwargs: `dtype`, `device_map`, `max_memory`, `offload_folder`, `quantization_config` (of the LLM),
                `attn_implementation`, and the Hub's `cache_dir`, `force_download`, `local_files_only`, `token`.

        Raises:
            FileNotFoundError: if a base is not found.
            ValueError: if the encoder is of a kind that SpeechVerse does not know.
        """
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        audio_folder = resolve_base(audio_base, revision=audio_revision, **hub_arguments)
        text_folder = resolve_base(text_base, revision=text_revision, **hub_arguments)
        text_config = AutoConfig.from_pretrained(text_folder)
        lora_config = None
        if lora_rank:
            lora_config = {
                "r": lora_rank,
                "lora_alpha": 2 * lora_rank if lora_alpha is None else lora_alpha,
                "lora_dropout": lora_dropout,
                "target_modules": lora_target_modules or default_lora_targets(text_config),
            }
        config = SpeechVerseConfig(
            audio_config=AutoConfig.from_pretrained(audio_folder),
            text_config=text_config,
            audio_base=describe_base(audio_base, audio_folder, audio_revision),
            text_base=describe_base(text_base, text_folder, text_revision),
            projector_kernel_sizes=projector_kernel_sizes,
            projector_strides=projector_strides,
            layer_mix=layer_mix,
            lora_config=lora_config,
            audio_token_id=free_token_id(AutoTokenizer.from_pretrained(text_folder)),
            freeze_audio_tower=freeze_audio_tower,
            input_modality=input_modality,
        )
        return cls._from_bases(config, audio_folder, text_folder, **kwargs)

    @torch.no_grad()
    def _scale_projector_to_embeddings(self):
        """Lets the frames start at the scale of the token embeddings beside them: std 13.5 in Flan-T5-small."""
        embeddings = self.get_input_embeddings()
        with align_module_device(embeddings):  # for they may be offloaded
            if not embeddings.weight.is_meta:
                self.multi_modal_projector.blocks[-1].norm.weight.fill_(embeddings.weight.float().std())

    def train(self, mode: bool = True):
        """Train mode for what learns. A frozen encoder stays in eval: its layer drop and SpecAugment must not run."""
        super().train(mode)
        if self.config.freeze_audio_tower:
            self.audio_tower.eval()
        return self

    def _set_gradient_checkpointing(self, enable=True, **kwargs):
        super()._set_gradient_checkpointing(enable, **kwargs)
        # In a frozen encoder it does nothing, since that stays in eval. Recomputing one that learns and whose layers are
        # mixed would run the mix's hooks in the backward pass, when they no longer listen.
        if enable and not self.config.freeze_audio_tower and self.config.layer_mix == "learned":
            for module in self.audio_tower.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value):
        self.language_model.set_output_embeddings(value)

    def get_encoder(self, modality=None):
        return self.audio_tower if modality == "audio" else self.language_model.get_encoder()

    def get_decoder(self):
        return self.language_model.get_decoder()

    @property
    def encoder_convolutions(self) -> list[Convolution]:
        """The convolutions over time from the audio input to the encoder's frames."""
        return self.audio_family.convolutions

    @property
    def projector_convolutions(self) -> list[Convolution]:
        """The convolutions over time from the encoder's frames to the projected ones."""
        return [block.geometry for block in self.multi_modal_projector.blocks]

    @can_return_tuple
    def get_audio_features(
        self,
        input_values: torch.FloatTensor | None = None,
        padding_mask: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.LongTensor | None = None,
        audio_hidden_states: torch.FloatTensor | None = None,
        audio_hidden_states_mask: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SpeechVerseAudioFeatures:
        """Encodes and projects recordings. Masks are padded on the right.

        Args:
            input_values (`torch.FloatTensor` of shape `(num_audios, samples)`, *optional*): 16 kHz waveforms.
            padding_mask (`torch.LongTensor` of shape `(num_audios, samples)`, *optional*): 1 on real samples.
            input_features (`torch.FloatTensor` of shape `(num_audios, mel bins, mel frames)`, *optional*): for Whisper.
            input_features_mask (`torch.LongTensor` of shape `(num_audios, mel frames)`, *optional*): 1 on real frames.
            audio_hidden_states (`torch.FloatTensor` of shape `(num_audios, frames, audio hidden_size)`, *optional*):
                what the encoder gave earlier, in place of its input; the encoder is then not run.
            audio_hidden_states_mask (`torch.LongTensor` of shape `(num_audios, frames)`, *optional*): 1 on real frames.
            **kwargs: for the encoder: `output_hidden_states`, `output_attentions`.

        Raises:
            ValueError: if there is no audio, or not in the form that this encoder takes, or the model learned from text alone.
        """
        if self.config.input_modality == "text":
            raise ValueError(
                "This model learned from transcripts alone (input_modality: text): its projector knows nothing of "
                "recordings. evaluation/run.py asks it by --system text or --system cascade."
            )
        if audio_hidden_states is not None:
            encoded = BaseModelOutputWithPooling(last_hidden_state=audio_hidden_states)
            lengths = _row_lengths(audio_hidden_states.shape[1], audio_hidden_states, audio_hidden_states_mask)
        else:
            inputs = {"input_values": input_values, "input_features": input_features}[self.audio_family.input_name]
            mask = {"padding_mask": padding_mask, "input_features_mask": input_features_mask}[
                self.audio_family.mask_name
            ]
            if inputs is None:
                raise ValueError(
                    f"This model's {self.config.audio_config.model_type} encoder takes {self.audio_family.input_name}; "
                    "make the inputs with the processor of the same checkpoint."
                )
            lengths = _row_lengths(inputs.shape[-1], inputs, mask)
            encoded, lengths = self.audio_family.encode(
                self.audio_tower,
                inputs.to(self.audio_tower.dtype),
                lengths,
                self.multi_modal_projector.layer_mix,
                **kwargs,
            )
        projected, projected_lengths = self.multi_modal_projector(encoded.last_hidden_state, lengths)
        return SpeechVerseAudioFeatures(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=projected,
            hidden_states=encoded.get("hidden_states"),
            attentions=encoded.get("attentions"),
            attention_mask=length_mask(projected_lengths, projected.shape[1]),
            last_hidden_state_mask=length_mask(lengths, encoded.last_hidden_state.shape[1]),
        )

    def get_placeholder_mask(self, input_ids: torch.LongTensor, num_frames: torch.LongTensor) -> torch.BoolTensor:
        """Where the audio tokens stand, `(batch, length)`; `num_frames` `(num_audios,)` are the recordings' own.

        Raises:
            ValueError: if a row's audio tokens are not the frames of whole recordings.
        """
        mask = input_ids == self.config.audio_token_id
        frames_so_far = nn.functional.pad(num_frames.cumsum(0), (1, 0)).to(mask.device)
        tokens_so_far = mask.sum(-1).cumsum(0)
        if tokens_so_far[-1] != frames_so_far[-1] or not torch.isin(tokens_so_far, frames_so_far).all():
            raise ValueError(
                f"The instructions hold {mask.sum(-1).tolist()} audio tokens but the recordings make "
                f"{num_frames.tolist()} frames; make both with one call of the processor."
            )
        return mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        padding_mask: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.LongTensor | None = None,
        audio_hidden_states: torch.FloatTensor | None = None,
        audio_hidden_states_mask: torch.LongTensor | None = None,
    ) -> SpeechVerseModelOutput:
        """Embeds the tokens and puts the audio frames where the audio tokens stand.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): tokens, one audio token for each projected frame.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*): 1 on real positions.
            input_values, padding_mask, input_features, input_features_mask, audio_hidden_states,
                audio_hidden_states_mask: the recordings in the order of their tokens, see
                [`~SpeechVerseModel.get_audio_features`]. Without any, the input is text alone.
        """
        if input_ids is None:
            raise ValueError("input_ids is missing: make the inputs with the processor.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        is_audio = input_ids == self.config.audio_token_id
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        has_audio = any(x is not None for x in (input_values, input_features, audio_hidden_states))
        if not has_audio and not is_audio.any():
            return SpeechVerseModelOutput(inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        audio = self.get_audio_features(
            input_values=input_values,
            padding_mask=padding_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            audio_hidden_states=audio_hidden_states,
            audio_hidden_states_mask=audio_hidden_states_mask,
            return_dict=True,
        )
        frames = audio.pooler_output[audio.attention_mask].to(inputs_embeds.device, inputs_embeds.dtype)
        is_audio = self.get_placeholder_mask(input_ids, audio.attention_mask.sum(-1))
        inputs_embeds = inputs_embeds.masked_scatter(is_audio[..., None].to(inputs_embeds.device), frames)
        return SpeechVerseModelOutput(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, audio_embeds=audio.pooler_output
        )


class SpeechVerseForConditionalGeneration(SpeechVerseModel, GenerationMixin):
    """Answers instructions about recordings."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        padding_mask: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.LongTensor | None = None,
        audio_hidden_states: torch.FloatTensor | None = None,
        audio_hidden_states_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ):
        """The LLM's logits, and the loss where there are labels.

        Args:
            labels (`torch.LongTensor`, *optional*): for an encoder-decoder LLM the answer, `(batch, answer length)`; for
                a decoder-only one `(batch, length)`, beside `input_ids`. -100 is not learned.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): tokens to learn in the whole optimizer step, over
                all its micro-batches and ranks; the loss is then their sum over it, else their mean.
            **kwargs: for the LLM, such as `decoder_input_ids`, `past_key_values`, `use_cache`, `output_attentions`; and
                `shift_labels`, what each position's logits have to predict, where a trainer has shifted the labels.
            The rest is as in [`SpeechVerseModel.forward`].

        Returns:
            The LLM's own output, `loss` filled in.
        """
        embedded = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_values=input_values,
            padding_mask=padding_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            audio_hidden_states=audio_hidden_states,
            audio_hidden_states_mask=audio_hidden_states_mask,
            return_dict=True,
        )
        if self.config.is_encoder_decoder:
            if labels is not None and kwargs.get("decoder_input_ids") is None:
                kwargs["decoder_input_ids"] = self.language_model.prepare_decoder_input_ids_from_labels(labels)
        elif kwargs.get("position_ids") is None:
            # Padding on either side must not shift positions.
            position_ids = (embedded.attention_mask.cumsum(-1) - 1).clamp(min=0)
            kwargs["position_ids"] = position_ids[:, -input_ids.shape[1] :]  # with a cache only the new tokens come in
        shift_labels = kwargs.pop("shift_labels", None)  # no parameter: Trainer would look for it among the labels
        if labels is not None:
            kwargs.setdefault("use_cache", False)
        output = self.language_model(
            inputs_embeds=embedded.inputs_embeds, attention_mask=embedded.attention_mask, **kwargs
        )
        if labels is not None:
            # A decoder-only LLM's logits at t predict t + 1: the loss shifts. An encoder-decoder's are already beside.
            if shift_labels is None and self.config.is_encoder_decoder:
                shift_labels = labels
            loss = self.loss_function(
                logits=output.logits,
                labels=labels,
                vocab_size=output.logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
            output = type(output)(**{**output, "loss": loss})  # made anew, so that the loss stands first in a tuple
        return output

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        padding_mask: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.LongTensor | None = None,
        audio_hidden_states: torch.FloatTensor | None = None,
        audio_hidden_states_mask: torch.LongTensor | None = None,
        constraint=None,
        hint_ids: list[list[int]] | list[list[list[int]] | None] | None = None,
        hint_bonus: float = DEFAULT_HINT_BONUS,
        **generate_kwargs,
    ):
        """Generates answers: greedy, beams, sampling, n-best, streamed; whatever the LLM's own `generate` does.

        Args:
            constraint (*optional*): the answers that may be given, as [`SpeechVerseProcessor.constraint`] makes them, for
                all rows; or a list of these, one for each. Every answer is then one of them, whole. An automaton over
                token ids, whose state 0 begins: its `edges[state]` map tokens to states, its `otherwise[state]` is
                where all other tokens lead, below 0 nowhere.
            hint_ids (`list[list[int]]` or one such list for each row, *optional*): tokens of words that an answer may hold, as
                [`SpeechVerseProcessor.hint_ids`] makes them; see [`~hint_biasing.HintLogitsProcessor`].
            hint_bonus (`float`, *optional*, defaults to 1): what each token of a hint adds to an answer's score, nats.
            **generate_kwargs: `max_new_tokens` (256 unless the generation config says otherwise), `num_beams`, `do_sample`, `num_return_sequences`, `streamer`, ...
            The rest is as in [`SpeechVerseModel.forward`].

        Returns:
            The answers' token ids alone, `(batch * num_return_sequences, answer length)`, or a `GenerateOutput`.

        Raises:
            ValueError: if the input of a decoder-only LLM is padded on the right, where it would go on writing.
        """
        embedded = self._embed_to_answer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_values=input_values,
            padding_mask=padding_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            audio_hidden_states=audio_hidden_states,
            audio_hidden_states_mask=audio_hidden_states_mask,
        )
        prompt_length = int(self.config.is_encoder_decoder)  # the decoder's start, which the answer comes behind
        processors = list(generate_kwargs.pop("logits_processor", None) or [])
        config, rest = merge_generation_config(self.generation_config, generate_kwargs)
        if constraint is not None:
            constraints = constrain_generation_config(
                config, constraint, len(input_ids), self.generation_config, generate_kwargs
            )
        hints = None
        if hint_ids is not None:
            before = prompt_length if self.config.is_encoder_decoder else embedded.inputs_embeds.shape[1]
            limit = config.max_new_tokens or config.max_length - before
            hints = HintLogitsProcessor(
                hint_ids, hint_bonus, prompt_length, eos_token_id=config.eos_token_id, max_new_tokens=limit
            )
        if constraint is not None:
            processors.append(ConstraintLogitsProcessor(constraints, prompt_length, config.max_new_tokens, hints))
        elif hints is not None:
            processors.append(hints)
        # Ours is the one that is saved and edited; the LLM's holds this call's, since what a call leaves open is filled in
        # from there.
        self.language_model.generation_config = config
        try:
            return self.language_model.generate(
                inputs_embeds=embedded.inputs_embeds,
                attention_mask=embedded.attention_mask,
                logits_processor=LogitsProcessorList(processors),
                **rest,
            )
        finally:
            self.language_model.generation_config = self.generation_config

    def generation_config_of(self, constraint=None, batch_size: int = 1, **generate_kwargs) -> GenerationConfig:
        """What [`~SpeechVerseForConditionalGeneration.generate`] makes of its options: all that it goes by, filled in."""
        config, _ = merge_generation_config(self.generation_config, generate_kwargs)
        if constraint is not None:
            constrain_generation_config(config, constraint, batch_size, self.generation_config, generate_kwargs)
        return config

    @torch.no_grad()
    def score_labels(
        self,
        label_ids: list[list[int]] | list[list[list[int]]],
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        max_rows: int = 64,
        **audio_inputs,
    ) -> torch.FloatTensor:
        """How likely each of several answers is, from one pass over the input.

        Tokens that answers begin with alike are run through the decoder once.

        Args:
            label_ids (`list[list[int]]`): the tokens of each answer with its end, as [`SpeechVerseProcessor.label_ids`] makes
                them; or a list of such lists, one for each row of the batch.
            max_rows (`int`, *optional*, defaults to 64): sequences that go through the decoder at once; bounds the memory.
            The rest is as in [`SpeechVerseModel.forward`].

        Returns:
            `torch.FloatTensor` of shape `(batch, labels)`: log-probabilities (nats), sums over an answer's tokens; minus
            infinity where a row has fewer labels than another. Their softmax shares out certainty among the labels.

        Raises:
            ValueError: if a row has no labels or an empty one, if a decoder-only LLM's input is padded on the right, or if the
                LLM keeps no cache to go on from.
        """
        embedded = self._embed_to_answer(input_ids=input_ids, attention_mask=attention_mask, **audio_inputs)
        batch_size = embedded.inputs_embeds.shape[0]
        label_ids = _as_lists(label_ids)
        shared = not label_ids or not label_ids[0] or not isinstance(label_ids[0][0], list)
        rows = [label_ids] * batch_size if shared else label_ids
        if len(rows) != batch_size or not all(row and all(row) for row in rows):
            raise ValueError(
                f"{batch_size} inputs need a list of labels, or one for each, and tokens in every label; there are "
                f"{[list(map(len, row)) for row in rows]} tokens."
            )
        return score_sequences(self.language_model, embedded.inputs_embeds, embedded.attention_mask, rows, max_rows)

    def _embed_to_answer(self, **inputs) -> SpeechVerseModelOutput:
        """The embedded input that an answer goes on from.

        Raises:
            ValueError: if the input of a decoder-only LLM is padded on the right, where it would go on writing.
        """
        embedded = super().forward(**inputs, return_dict=True)
        if not self.config.is_encoder_decoder and not embedded.attention_mask[:, -1].all():
            raise ValueError("A decoder-only LLM generates after its input: pad it on the left, not on the right.")
        return embedded


def default_lora_targets(text_config) -> list[str]:
    """The query and value projections of an LLM, by peft's own table.

    Raises:
        ValueError: if peft has no default for this kind of LLM.
    """
    targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(text_config.model_type)
    if targets is None:
        raise ValueError(
            f"peft has no default LoRA targets for a {text_config.model_type!r} LLM: pass lora_target_modules=[...]."
        )
    return list(targets)


def free_token_id(tokenizer) -> int:
    """The id that `<audio>` has in this tokenizer, or gets when it is added to it."""
    known = tokenizer.get_vocab().get(AUDIO_TOKEN)
    return len(tokenizer) if known is None else known


def _as_lists(tokens):
    """Nested lists of token ids, of lists, tuples or tensors of them."""
    if isinstance(tokens, torch.Tensor):
        return tokens.tolist()
    return [_as_lists(part) for part in tokens] if isinstance(tokens, (list, tuple)) else tokens


def _row_lengths(max_length: int, inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return torch.full((inputs.shape[0],), max_length, device=inputs.device)
    return mask.sum(-1)


__all__ = ["SpeechVerseForConditionalGeneration", "SpeechVerseModel"]

"""The speech encoders that SpeechVerse can listen through.

A family says what the model has to know of an encoder and transformers does not tell: what its input is called, how
many frames it makes of it, where its layers are, and how to run it so that a padded batch gives what single recordings
give. A new family is a new class here and a new row in the common tester.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.output_capturing import capture_outputs


SAMPLING_RATE = 16_000  # Hz: every encoder here was trained on it


class Convolution(NamedTuple):
    """Geometry of a strided convolution over time."""

    kernel_size: int
    stride: int
    padding: int = 0


def output_lengths(lengths, convolutions):
    """Number of frames that a chain of `convolutions` makes of `lengths` input frames; an int or an integer tensor."""
    for kernel_size, stride, padding in convolutions:
        lengths = (lengths + 2 * padding - kernel_size) // stride + 1
    return lengths


def length_mask(lengths: torch.Tensor, max_length: int) -> torch.Tensor:
    """Bool mask `(batch, max_length)`, true on the first `lengths[i]` positions of row i."""
    return torch.arange(max_length, device=lengths.device)[None, :] < lengths[:, None]


class AudioEncoderFamily:
    """What SpeechVerse needs to know of a kind of encoder.

    Attributes:
        input_name (`str`): name of its input, `input_values` (waveform) or `input_features` (mel).
        mask_name (`str`): name of the mask over that input's time axis, 1 on real values.
        input_rate (`float`): rate of the input's time axis, in Hz.
        fixed_parameters (`tuple[str, ...]`): beginnings of the names of parameters that never learn.
        tower_keys (`str`, *optional*): where a checkpoint holds more than the encoder, a pattern of what stands before
            the names of the encoder's weights; the rest is then not loaded.
    """

    input_name = "input_values"
    mask_name = "padding_mask"
    input_rate = float(SAMPLING_RATE)
    fixed_parameters: tuple[str, ...] = ()
    tower_keys: str | None = None

    def __init__(self, config: PreTrainedConfig):
        self.config = config

    @property
    def convolutions(self) -> list[Convolution]:
        """The encoder's convolutions over time, from its input to its frames."""
        raise NotImplementedError

    @property
    def frame_rate(self) -> float:
        """Frames per second of the encoder's output."""
        rate = self.input_rate
        for convolution in self.convolutions:
            rate /= convolution.stride
        return rate

    @property
    def max_input_length(self) -> int | None:
        """Longest input in steps of its time axis; `None` where there is no bound."""
        return None

    @property
    def normalises_over_time(self) -> bool:
        """Whether padding changes the features themselves, so that only equal lengths may share a batch."""
        return False

    def build(self) -> nn.Module:
        """The encoder with random weights."""
        return self.tower_of(AutoModel.from_config(self.config))

    def tower_of(self, model: nn.Module) -> nn.Module:
        """The encoder inside the model that `AutoModel` gives."""
        return model

    def layers_of(self, tower: nn.Module) -> nn.ModuleList:
        """The transformer layers, in order."""
        return tower.encoder.layers

    def run(self, tower: nn.Module, inputs: torch.Tensor, mask: torch.Tensor | None, **kwargs) -> BaseModelOutput:
        """What the encoder puts out; `mask` `(batch, time)` is `None` where nothing is padded."""
        return tower(inputs, attention_mask=mask, **kwargs)

    def encode(self, tower, inputs, lengths, layer_mix=None, **kwargs) -> tuple[BaseModelOutput, torch.Tensor]:
        """Encodes a padded batch so that every row is what it would be alone.

        Args:
            tower (`nn.Module`): the encoder.
            inputs (`torch.Tensor`): `(batch, samples)` or `(batch, mel bins, mel frames)`.
            lengths (`torch.Tensor`): `(batch,)`, the real steps of each row's time axis.
            layer_mix (`nn.Module`, *optional*): mixes the layers' outputs; the mix then is the last hidden state.
            **kwargs: for the encoder: `output_hidden_states`, `output_attentions`.

        Returns:
            the encoder's output, its last hidden state `(batch, frames, hidden_size)`, and the number of frames in each
            row, `(batch,)`.
        """
        frame_lengths = output_lengths(lengths, self.convolutions)
        self._refuse_impossible(lengths, frame_lengths)
        if self.normalises_over_time:
            return self._encode_equal_lengths(tower, inputs, lengths, layer_mix, **kwargs), frame_lengths
        padded = bool((lengths < inputs.shape[-1]).any())
        mask = length_mask(lengths, inputs.shape[-1]).long() if padded else None
        return self._run_and_mix(tower, inputs, mask, layer_mix, **kwargs), frame_lengths

    def _encode_equal_lengths(self, tower, inputs, lengths, layer_mix, **kwargs):
        rows, outputs = [], []
        different = lengths.unique()
        repeated = different[-1:].repeat(_most_of_any_rank(different, tower) - len(different))
        for length in torch.cat([different, repeated]).tolist():
            rows.append((lengths == length).nonzero().flatten())
            outputs.append(self._run_and_mix(tower, inputs[rows[-1]][..., :length], None, layer_mix, **kwargs))
        per_layer = {}
        for name in ("hidden_states", "attentions"):
            if outputs[0].get(name) is not None:
                layers = zip(*(output[name] for output in outputs), strict=True)
                per_layer[name] = tuple(_join_rows(parts, rows, len(lengths)) for parts in layers)
        last_hidden_state = _join_rows([output.last_hidden_state for output in outputs], rows, len(lengths))
        return BaseModelOutput(last_hidden_state=last_hidden_state, **per_layer)

    def _run_and_mix(self, tower, inputs, mask, layer_mix, **kwargs):
        # A frozen tower costs no graph, while the mix of its layers needs one.
        tower_learns = torch.is_grad_enabled() and any(p.requires_grad for p in tower.parameters())
        if layer_mix is None:
            with torch.set_grad_enabled(tower_learns):
                return self.run(tower, inputs, mask, **kwargs)
        with layer_mix.listen(self.layers_of(tower)) as mixed, torch.set_grad_enabled(tower_learns):
            output = self.run(tower, inputs, mask, **kwargs)
        output.last_hidden_state = mixed.hidden_states
        return output

    def _refuse_impossible(self, lengths, frame_lengths):
        if (frame_lengths < 1).any():
            seconds = lengths.min().item() / self.input_rate
            raise ValueError(f"An audio of {seconds:.3f} s is too short: the encoder makes no frame of it.")
        if self.max_input_length is not None and (lengths > self.max_input_length).any():
            raise ValueError(
                f"An audio of {lengths.max().item() / self.input_rate:.1f} s is too long: this encoder has positions "
                f"for {self.max_input_length / self.input_rate:.1f} s. Cut it into shorter pieces."
            )


class Wav2Vec2Family(AudioEncoderFamily):
    """wav2vec2, HuBERT and WavLM: a convolutional front-end on the waveform, then transformer layers."""

    fixed_parameters = ("masked_spec_embed",)  # of SpecAugment, which is off

    def __init__(self, config):
        super().__init__(config)
        if getattr(config, "add_adapter", False):
            raise ValueError(
                f"The {config.model_type} encoder has add_adapter=True, whose convolutions ignore padding; "
                "set add_adapter=False: SpeechVerse brings its own downsampler."
            )

    @property
    def convolutions(self):
        return [Convolution(*pair) for pair in zip(self.config.conv_kernel, self.config.conv_stride, strict=True)]

    @property
    def normalises_over_time(self):
        return self.config.feat_extract_norm == "group"


class MoonshineFamily(AudioEncoderFamily):
    """Moonshine: three convolutions on the waveform with a group norm over time, then rotary transformer layers."""

    normalises_over_time = True
    tower_keys = r"^(?:model\.)?encoder\."

    @property
    def convolutions(self):
        return [Convolution(127, 64), Convolution(7, 3), Convolution(3, 2)]

    def tower_of(self, model):
        return model.encoder

    def layers_of(self, tower):
        return tower.layers


class WhisperFamily(AudioEncoderFamily):
    """Whisper's encoder on true lengths: no padding to 30 s, no attention to padded frames."""

    input_name = "input_features"
    mask_name = "input_features_mask"
    input_rate = 100.0  # mel frames: 16 kHz with a hop of 160 samples
    fixed_parameters = ("embed_positions.",)  # sinusoids
    tower_keys = r"^(?:model\.)?encoder\."

    @property
    def convolutions(self):
        return [Convolution(3, 1, 1), Convolution(3, 2, 1)]

    @property
    def max_input_length(self):
        return 2 * self.config.max_source_positions

    def tower_of(self, model):
        return model.encoder

    def layers_of(self, tower):
        return tower.layers

    def run(self, tower, inputs, mask, **kwargs):
        return _run_whisper(tower, inputs, mask, self.convolutions, **kwargs)


@capture_outputs
def _run_whisper(tower, inputs, mask, convolutions, **kwargs):
    # WhisperEncoder.forward insists on 3,000 mel frames and ignores masks, so its parts are called in turn.
    frame_mask = None
    if mask is not None:
        inputs = inputs * mask[:, None, :]
    hidden_states = nn.functional.gelu(tower.conv1(inputs))
    if mask is not None:
        hidden_states = hidden_states * mask[:, None, :]  # the second convolution must see silence there, too
        frame_mask = length_mask(output_lengths(mask.sum(-1), convolutions), (mask.shape[-1] + 1) // 2)
    hidden_states = nn.functional.gelu(tower.conv2(hidden_states)).transpose(1, 2)
    positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
    hidden_states = hidden_states + tower.embed_positions(positions)
    hidden_states = nn.functional.dropout(hidden_states, p=tower.dropout, training=tower.training)
    attention_mask = create_bidirectional_mask(
        config=tower.config, inputs_embeds=hidden_states, attention_mask=frame_mask
    )
    for layer in tower.layers:
        hidden_states = layer(hidden_states, attention_mask)
    return BaseModelOutput(last_hidden_state=tower.layer_norm(hidden_states))


def _most_of_any_rank(lengths: torch.Tensor, module: nn.Module) -> int:
    """How often `module` has to run if this rank needs it for each of `lengths`: under ZeRO-3, as often as any rank.

    The ranks gather its partitioned weights together, and would wait for one that runs it less often.
    """
    most = lengths.new_tensor(len(lengths))
    if any(hasattr(parameter, "ds_id") for parameter in module.parameters()):
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return most.item()


def _join_rows(parts, rows: list[torch.Tensor], batch_size: int) -> torch.Tensor:
    """One batch of parts with other lengths, zero-padded; `rows[i]` says which of its rows are those of `parts[i]`."""
    sizes = [max(axis) for axis in zip(*(part.shape[1:] for part in parts), strict=True)]
    joined = parts[0].new_zeros(batch_size, *sizes)
    for part, index in zip(parts, rows, strict=True):
        joined[(index, *map(slice, part.shape[1:]))] = part
    return joined


AUDIO_ENCODER_FAMILIES: dict[str, type[AudioEncoderFamily]] = {
    "hubert": Wav2Vec2Family,
    "moonshine": MoonshineFamily,
    "wav2vec2": Wav2Vec2Family,
    "wavlm": Wav2Vec2Family,
    "whisper": WhisperFamily,
}


def audio_encoder_family(config: PreTrainedConfig) -> AudioEncoderFamily:
    """The family of an encoder's configuration.

    Raises:
        ValueError: if SpeechVerse does not know that kind of encoder.
    """
    if config.model_type not in AUDIO_ENCODER_FAMILIES:
        raise ValueError(
            f"SpeechVerse knows no audio encoder of model_type {config.model_type!r}; it knows "
            f"{', '.join(AUDIO_ENCODER_FAMILIES)}."
        )
    return AUDIO_ENCODER_FAMILIES[config.model_type](config)

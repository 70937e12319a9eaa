"""The encoders against transformers' own forward passes."""

import pytest
import torch
from tiny_models import AUDIO_CONFIGS, noise, tiny_model
from transformers import AutoConfig

from speechverse import SpeechVerseConfig
from speechverse.modeling_speechverse.audio_encoders import audio_encoder_family
from speechverse.modeling_speechverse.configuration_speechverse import choose_strides


WAVEFORM_ENCODERS = [name for name in AUDIO_CONFIGS if name != "whisper"]


@pytest.mark.parametrize("audio", WAVEFORM_ENCODERS)
def test_last_hidden_state_is_the_encoders_own(audio):
    model = tiny_model(audio)
    wave = torch.from_numpy(noise(1.3))[None]
    expected = model.audio_tower(wave).last_hidden_state
    torch.testing.assert_close(model.get_audio_features(input_values=wave).last_hidden_state, expected)


def test_whisper_loop_equals_whisper_on_thirty_seconds():
    model = tiny_model("whisper")
    mel = torch.randn(2, 80, 3000)
    expected = model.audio_tower(mel).last_hidden_state
    found = model.get_audio_features(input_features=mel).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("audio", WAVEFORM_ENCODERS)
def test_learned_mix_is_the_formula(audio):
    model = tiny_model(audio, layer_mix="learned")
    wave = torch.from_numpy(noise(0.9))[None]
    layers = model.audio_family.layers_of(model.audio_tower)
    outputs = []
    hooks = [layer.register_forward_hook(lambda m, a, o: outputs.append(o)) for layer in layers]
    model.audio_tower(wave)
    for hook in hooks:
        hook.remove()
    outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
    weights = model.multi_modal_projector.layer_mix.weights
    expected = sum(w * h for w, h in zip(weights, outputs, strict=True)) / len(outputs)
    torch.testing.assert_close(model.get_audio_features(input_values=wave).last_hidden_state, expected)


def test_learned_mix_takes_transformers_hidden_states():
    """Layers 1 to L of `output_hidden_states`, for an encoder that does not tie the last one to its final norm."""
    model = tiny_model("wav2vec2-group-norm", layer_mix="learned")
    wave = torch.from_numpy(noise(0.9))[None]
    hidden_states = model.audio_tower(wave, output_hidden_states=True).hidden_states[1:]
    weights = model.multi_modal_projector.layer_mix.weights
    expected = torch.einsum("l,l...->...", weights, torch.stack(hidden_states)) / len(hidden_states)
    torch.testing.assert_close(model.get_audio_features(input_values=wave).last_hidden_state, expected)


def test_learned_mix_keeps_no_layer_when_nothing_learns():
    model = tiny_model("wavlm", layer_mix="learned")
    mix = model.multi_modal_projector.layer_mix
    with torch.no_grad(), mix.listen(model.audio_family.layers_of(model.audio_tower)) as mixed:
        model.audio_tower(torch.from_numpy(noise(0.5))[None])
    assert mixed.hidden_states.ndim == 3 and not mixed.hidden_states.requires_grad
    assert not any(layer._forward_hooks for layer in model.audio_family.layers_of(model.audio_tower))


@pytest.mark.parametrize(
    "rate, strides", [(50, [2, 2]), (25, [2, 1]), (16_000 / 384, [3, 1]), (12.5, [1, 1]), (100, [3, 3])]
)
def test_strides_bring_the_rate_nearest_to_the_papers(rate, strides):
    assert choose_strides(rate, 2) == strides


def test_frame_rates():
    rates = {audio: audio_encoder_family(config()).frame_rate for audio, config in AUDIO_CONFIGS.items()}
    assert rates["whisper"] == rates["wavlm"] == 50
    assert rates["moonshine"] == pytest.approx(41.67, abs=0.01)


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="no audio encoder of model_type 'bert'"):
        audio_encoder_family(AutoConfig.for_model("bert"))


def test_encoder_with_an_adapter_of_its_own_is_refused():
    config = AUDIO_CONFIGS["wav2vec2"]()
    config.add_adapter = True
    with pytest.raises(ValueError, match="add_adapter=False"):
        audio_encoder_family(config)


@pytest.mark.parametrize(
    "field, message",
    [
        ({"layer_mix": "softmax"}, "layer_mix is 'softmax'"),
        ({"projector_kernel_sizes": [3, 4]}, r"\[3, 4\]; give one odd whole number for every block"),
        ({"projector_kernel_sizes": []}, "one odd whole number"),
        ({"projector_strides": [0, 2]}, "at least 1"),
        ({"projector_strides": [2.0, 2]}, "whole number"),
        ({"projector_strides": [2]}, "projector_strides has 1 entries"),
    ],
)
def test_impossible_configuration_is_refused(field, message):
    with pytest.raises(ValueError, match=message):
        SpeechVerseConfig(**field)


def test_recording_beyond_whispers_positions_is_refused():
    model = tiny_model("whisper")
    with pytest.raises(ValueError, match=r"31\.0 s is too long.*30\.0 s"):
        model.get_audio_features(input_features=torch.randn(1, 80, 3100))


def test_recording_without_a_frame_is_refused():
    with pytest.raises(ValueError, match="too short"):
        tiny_model("wavlm").get_audio_features(input_values=torch.randn(1, 200))


def test_wrong_kind_of_input_is_refused():
    with pytest.raises(ValueError, match="takes input_values"):
        tiny_model("wavlm").get_audio_features(input_features=torch.randn(1, 80, 100))


@pytest.mark.parametrize("audio", ["wav2vec2", "hubert", "wavlm"])
def test_encoder_that_learns_drops_no_layer_of_the_mix_and_takes_short_clips(audio):
    model = tiny_model(audio, layer_mix="learned", freeze_audio_tower=False).train()
    wave = torch.from_numpy(noise(0.12))[None]
    outputs = [model.get_audio_features(input_values=wave) for _ in range(20)]
    outputs[0].pooler_output.square().mul(torch.arange(24)).sum().backward()  # a plain sum is constant after a norm
    assert model.multi_modal_projector.layer_mix.weights.grad.ne(0).all()


def test_whispers_sinusoids_never_learn():
    model = tiny_model("whisper", freeze_audio_tower=False)
    fixed = [name for name, p in model.audio_tower.named_parameters() if not p.requires_grad]
    assert fixed == ["embed_positions.weight"]

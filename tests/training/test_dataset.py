"""Samples as the model gets them: drawn wordings, cached features."""

from collections import Counter

import pytest
import torch
from tiny_models import AUDIO_CONFIGS, tiny_model, tiny_processor

from speechverse.training.data.dataset import Draw, InstructionDataset
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import CheckedSample, FilterRules, check_samples
from speechverse.training.data.manifest import ManifestSource, load_samples
from speechverse.training.data.sample import Sample


WORDINGS = ("which colour ?", "say it .", "what is said ?")


def drawn_wordings(number=3000, step=0, seed=0):
    checked = [CheckedSample(Sample("a.wav", WORDINGS, "yes"), None)] * number
    dataset = InstructionDataset(checked, None, seed=seed)
    return [dataset.instruction(Draw(index, step)) for index in range(number)]


def chi_square(drawn, outcomes):
    counts, expected = Counter(drawn), len(drawn) / outcomes
    return sum((counts[key] - expected) ** 2 / expected for key in counts) + (outcomes - len(counts)) * expected


def test_wording_is_a_function_of_seed_step_and_index():
    first = drawn_wordings(step=2, seed=5)
    assert drawn_wordings(step=2, seed=5) == first
    assert drawn_wordings(step=3, seed=5) != first
    assert drawn_wordings(step=2, seed=6) != first
    assert drawn_wordings(number=10, step=2, seed=5) == first[:10]  # whatever was drawn before


def test_wordings_are_drawn_uniformly_and_steps_independently():
    first, second = drawn_wordings(step=0), drawn_wordings(step=1)
    assert chi_square(first, 3) < 13.8  # exceeded by chance once in 1,000
    assert chi_square(list(zip(first, second, strict=True)), 9) < 26.1
    assert chi_square(list(zip(first, first[1:], strict=False)), 9) < 26.1


def dataset_of(manifest, model, processor, tasks, features=None):
    samples = load_samples(ManifestSource(str(manifest), instruction=list(WORDINGS), target="$answer"), tasks)
    if features is not None:
        features.add(sample.audio for sample in samples)
    return InstructionDataset(check_samples(samples, FilterRules(processor), workers=1), processor, features)


@pytest.mark.parametrize(
    "audio, text", [*((audio, "t5") for audio in AUDIO_CONFIGS), ("wavlm", "llama"), ("whisper", "llama")]
)
def test_cached_features_give_the_same_loss(audio, text, manifest, tasks, tmp_path):
    model = tiny_model(audio, text)
    processor = tiny_processor(model, audio, text)
    plain = dataset_of(manifest, model, processor, tasks)
    cached = dataset_of(manifest, model, processor, tasks, FeatureCache(model, processor, tmp_path, batch_size=3))
    for index in range(len(plain)):
        assert cached[index]["input_ids"] == plain[index]["input_ids"]
    batches = [processor.pad([dataset[index] for index in range(8)]) for dataset in (plain, cached)]
    assert "audio_hidden_states" in batches[1] and processor.audio_input_name not in batches[1]
    batches.append(batches[1] | {"audio_hidden_states": batches[1]["audio_hidden_states"].flip(2)})
    expected, found, disturbed = (model(**batch) for batch in batches)
    torch.testing.assert_close(found.loss, expected.loss, rtol=2e-3, atol=0)
    error, effect = ((output.logits - expected.logits).abs().max() for output in (found, disturbed))
    assert error < 0.05 * effect


def test_cache_encodes_a_recording_once(manifest, tasks, tmp_path, monkeypatch):
    model = tiny_model()
    processor = tiny_processor(model)
    features = FeatureCache(model, processor, tmp_path)
    dataset = dataset_of(manifest, model, processor, tasks, features)
    before = features[dataset.sample(0).audio]
    monkeypatch.setattr(processor, "extract_features", lambda audio: pytest.fail(f"{audio} is read again"))
    features.add(one.sample.audio for one in dataset.checked)
    assert torch.equal(features[dataset.sample(0).audio], before)


@pytest.mark.parametrize("config", [{"layer_mix": "learned"}, {"freeze_audio_tower": False}])
def test_cache_refuses_an_encoder_whose_output_changes(config, tmp_path):
    model = tiny_model(**config)
    with pytest.raises(ValueError, match="cache_features needs a frozen encoder and layer_mix: last"):
        FeatureCache(model, tiny_processor(model), tmp_path)

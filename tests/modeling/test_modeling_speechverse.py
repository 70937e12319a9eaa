"""The model: the paper's parameter counts, generation, checkpoints, adapters, memory."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paper_models import encoder_at_25_hz, multitask, wavlm_large
from safetensors.torch import load_file, save_file
from tiny_models import AUDIO_CONFIGS, noise, save_bases, tiny_model, tiny_processor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    T5ForConditionalGeneration,
)

from speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration
from speechverse.modeling_speechverse import configuration_speechverse
from speechverse.modeling_speechverse.base_checkpoints import find_named_base, fingerprint


def trainable_parameters_on_meta(config) -> int:
    with torch.device("meta"):
        model = SpeechVerseForConditionalGeneration(config)
    on_cpu = [name for name, parameter in model.named_parameters() if not parameter.is_meta]
    assert on_cpu in ([], ["audio_tower.masked_spec_embed"])  # which transformers makes there, whatever the context
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_multitask_wlm_has_the_papers_trainable_parameters():
    assert trainable_parameters_on_meta(multitask(wavlm_large())) == 28_323_840


def test_multitask_brq_has_the_papers_trainable_parameters():
    config = multitask(encoder_at_25_hz(), layer_mix="learned")
    assert trainable_parameters_on_meta(config) == 26_750_976 + 24
    assert config.projector_strides == [2, 1]


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def processor(model):
    return tiny_processor(model)


@pytest.fixture
def inputs(processor):
    audio = [{"array": noise(seconds), "sampling_rate": 16_000} for seconds in (0.5, 0.9)]
    return processor(text="which colour ?", audio=audio)


def learn_something(model, seed=0, std=0.3):
    """Fills the adapter with noise, as if it had learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def bases(tmp_path, monkeypatch):
    save_bases(tmp_path / "bases")
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
    return tmp_path / "bases"


def from_tiny_foundations(**kwargs):
    kwargs = {"lora_rank": 2} | kwargs
    return SpeechVerseForConditionalGeneration.from_foundations("tiny-wavlm", "tiny-t5", **kwargs)


# Generation


def test_beams_samples_and_n_best(model, inputs):
    greedy = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert greedy.shape[0] == 2
    n_best = model.generate(**inputs, max_new_tokens=5, num_beams=4, num_return_sequences=3)
    assert n_best.shape[0] == 6
    assert len({tuple(row) for row in n_best[:3].tolist()}) == 3
    torch.manual_seed(0)
    first = model.generate(**inputs, max_new_tokens=5, do_sample=True)
    torch.manual_seed(0)
    assert torch.equal(first, model.generate(**inputs, max_new_tokens=5, do_sample=True))


def test_generation_config_of_the_model_is_heeded(model, inputs):
    model.generation_config.max_new_tokens = 2
    assert model.generate(**inputs, do_sample=False).shape[1] == 3


def test_length_of_an_answer_is_bounded_by_what_was_asked_for(model, inputs):
    model.generation_config.eos_token_id = None
    assert model.generate(**inputs, do_sample=False).shape[1] == 257  # the start token, and our own default
    assert model.generate(**inputs, do_sample=False, max_length=5).shape[1] == 5


def test_decoder_only_llm_goes_on_from_its_cache():
    model = tiny_model(text="llama")
    inputs = tiny_processor(model, text="llama")(text="say it", audio=noise(0.5), sampling_rate=16_000)
    start = model(**inputs, use_cache=True)
    token = start.logits[:, -1:].argmax(-1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], 1)
    step = model(input_ids=token, attention_mask=mask, past_key_values=start.past_key_values)
    whole = inputs | {"input_ids": torch.cat([inputs["input_ids"], token], 1), "attention_mask": mask}
    torch.testing.assert_close(step.logits[:, -1], model(**whole).logits[:, -1], atol=1e-5, rtol=0)


def test_right_padding_is_refused_where_the_llm_goes_on_writing():
    model = tiny_model(text="llama")
    processor = tiny_processor(model, text="llama")
    audio = [{"array": noise(seconds), "sampling_rate": 16_000} for seconds in (0.5, 0.9)]
    inputs = processor(text="which colour ?", audio=audio, padding_side="right")
    with pytest.raises(ValueError, match="pad it on the left"):
        model.generate(**inputs)


def test_audio_tokens_and_frames_must_match(model, inputs):
    with pytest.raises(ValueError, match="audio tokens but the recordings make"):
        model(**inputs | {"input_ids": inputs["input_ids"][:, 1:], "attention_mask": None}, decoder_input_ids=None)


def test_frames_of_one_row_do_not_spill_into_the_next(model, processor):
    """As many tokens as frames in all, but not in each row."""
    audio = [{"array": noise(seconds), "sampling_rate": 16_000} for seconds in (0.5, 0.9)]
    swapped = processor(text="say it", audio=audio[::-1])
    inputs = processor(text="say it", audio=audio) | {k: swapped[k] for k in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="audio tokens but the recordings make"):
        model.generate(**inputs)


def test_recordings_stand_where_their_placeholders_stand(model, processor):
    first, second = ({"array": noise(0.5, seed), "sampling_rate": 16_000} for seed in (1, 2))
    inputs = processor(text="is <audio> red or <audio> blue ?", audio=[first, second], text_target="yes")
    embedded = super(SpeechVerseForConditionalGeneration, model).forward(
        **{k: v for k, v in inputs.items() if k != "labels"}
    )
    is_audio = inputs["input_ids"][0] == model.config.audio_token_id
    expected = [
        model.get_audio_features(
            **{k: v for k, v in processor(text="red", audio=a).items() if k in ("input_values", "padding_mask")}
        ).pooler_output[0]
        for a in (first, second)
    ]
    torch.testing.assert_close(embedded.inputs_embeds[0][is_audio], torch.cat(expected), atol=1e-5, rtol=0)
    text = model.get_input_embeddings()(inputs["input_ids"][0][~is_audio])
    assert torch.equal(embedded.inputs_embeds[0][~is_audio], text)


# Numbers and memory


def test_frames_start_at_the_scale_of_the_embeddings(bases):
    model = from_tiny_foundations()
    frames = model.get_audio_features(input_values=torch.from_numpy(noise(2.0))[None]).pooler_output
    assert frames.std().item() == pytest.approx(model.get_input_embeddings().weight.std().item(), rel=0.05)


@pytest.mark.parametrize("freeze", [True, False])
def test_gradient_checkpointing_recomputes_and_changes_nothing(freeze, monkeypatch):
    model = tiny_model(freeze_audio_tower=freeze)
    processor = tiny_processor(model)
    batch = processor(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")

    def gradients():
        model.zero_grad()
        model.train()
        torch.manual_seed(0)
        model(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in model.language_model.named_parameters() if p.grad is not None}

    model.audio_tower.config.update({"layerdrop": 0.0, "apply_spec_augment": False})
    for module in model.audio_tower.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    expected = gradients()
    calls = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint", lambda *a, **k: calls.append(a) or checkpoint(*a, **k)
    )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found = gradients()
    llm_layers = 4  # T5: two in the encoder, two in the decoder
    audio_layers = 0 if freeze else 6  # WavLM: three convolutions, three transformer layers
    assert len(calls) == llm_layers + audio_layers
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_bfloat16_bases_with_float32_adapter(bases):
    model = from_tiny_foundations(dtype=torch.bfloat16)
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    processor = tiny_processor(model)
    batch = processor(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**batch).loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    del batch["labels"]
    assert model.eval().generate(**batch, max_new_tokens=3).shape[0] == 1


# Checkpoints


def test_training_starts_from_another_adapter(bases, tmp_path):
    trained = learn_something(from_tiny_foundations())
    trained.save_pretrained(tmp_path)
    model = from_tiny_foundations()
    model.start_from_adapter(tmp_path)
    expected = dict(trained.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name]) and parameter.requires_grad == expected[name].requires_grad, name
    with pytest.raises(ValueError, match="has another LoRA: lora_alpha, r differ"):
        from_tiny_foundations(lora_rank=3).start_from_adapter(tmp_path)
    with pytest.raises(ValueError, match="has projector_strides="):
        from_tiny_foundations(projector_strides=[1, 2]).start_from_adapter(tmp_path)


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM])
def test_auto_classes_load_an_adapter(auto_class, bases, tmp_path):
    model = learn_something(from_tiny_foundations())
    model.save_pretrained(tmp_path / "adapter")
    assert AutoConfig.from_pretrained(tmp_path / "adapter").model_type == "speechverse"
    loaded = auto_class.from_pretrained(
        tmp_path / "adapter", dtype=torch.bfloat16, device_map="cpu", local_files_only=True
    )
    assert type(loaded) is SpeechVerseForConditionalGeneration and not loaded.training
    assert loaded.language_model.dtype == torch.bfloat16
    expected = dict(model.named_parameters())
    for name, parameter in loaded.named_parameters():
        assert not parameter.requires_grad or torch.equal(parameter, expected[name]), name


def test_device_map_auto_places_the_whole_model(bases, tmp_path):
    model = learn_something(from_tiny_foundations())
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoModel.from_pretrained(tmp_path / "adapter", device_map="auto")
    inputs = tiny_processor(model)(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_checkpoint_names_its_bases_and_no_path(bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    text = (tmp_path / "adapter" / "config.json").read_text()
    config = json.loads(text)
    assert config["audio_base"] == {
        "id": "tiny-wavlm", "revision": None, "fingerprint": fingerprint(bases / "tiny-wavlm"),
    }  # fmt: skip
    assert str(tmp_path) not in text
    keys = load_file(tmp_path / "adapter" / "model.safetensors")
    assert all(key.startswith("multi_modal_projector.") or ".lora_" in key for key in keys)
    assert not list((tmp_path / "adapter").glob("*.bin"))


NEUTRAL = {"variant": None, "proxies": None, "weights_only": True, "ignore_mismatched_sizes": False}


def test_arguments_that_ask_for_nothing_are_taken(bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    AutoModel.from_pretrained(tmp_path / "adapter", **NEUTRAL, offload_buffers=False, state_dict=None)
    asking = {"variant": "fp16", "weights_only": False, "ignore_mismatched_sizes": True, "use_kernels": True}
    for name, value in asking.items():
        with pytest.raises(TypeError, match=f"from_pretrained takes no argument {name} where the bases"):
            SpeechVerseForConditionalGeneration.from_pretrained(tmp_path / "adapter", **{name: value})


def test_whole_checkpoint_needs_no_bases(bases, tmp_path, monkeypatch):
    model = learn_something(from_tiny_foundations())
    model.save_pretrained(tmp_path / "whole", standalone=True)
    monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS")
    loaded = AutoModel.from_pretrained(tmp_path / "whole")
    inputs = tiny_processor(model)(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_whole_checkpoint_comes_back_frozen(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    expected = dict(model.named_parameters())
    for name, parameter in loaded.named_parameters():
        learns = expected[name].requires_grad
        assert parameter.requires_grad == learns, name
        assert parameter.dtype == (torch.float32 if learns else torch.bfloat16), name
        assert not learns or torch.equal(parameter, expected[name]), name


def test_untied_head_of_flan_t5_survives_every_way_of_saving(bases, tmp_path):
    flan = T5ForConditionalGeneration.from_pretrained(bases / "tiny-t5")
    flan.lm_head.weight = torch.nn.Parameter(torch.randn_like(flan.lm_head.weight))
    flan.config.tie_word_embeddings = False
    flan.save_pretrained(bases / "tiny-t5")
    config = json.loads((bases / "tiny-t5" / "config.json").read_text())
    (bases / "tiny-t5" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))

    model = learn_something(from_tiny_foundations())
    model.tie_weights()
    inputs = tiny_processor(model)(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
    assert torch.equal(model.get_output_embeddings().weight, flan.lm_head.weight)
    model.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole", standalone=True)
    for name in ("adapter", "whole"):
        loaded = AutoModel.from_pretrained(tmp_path / name)
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, msg=name)


def test_untied_head_outlives_tying_after_a_whole_load(bases, tmp_path):
    flan = T5ForConditionalGeneration.from_pretrained(bases / "tiny-t5")
    flan.lm_head.weight = torch.nn.Parameter(torch.randn_like(flan.lm_head.weight))
    flan.config.tie_word_embeddings = False
    flan.save_pretrained(bases / "tiny-t5")
    from_tiny_foundations().save_pretrained(tmp_path / "whole", standalone=True)
    loaded = AutoModel.from_pretrained(tmp_path / "whole")
    loaded.tie_weights()
    assert torch.equal(loaded.get_output_embeddings().weight, flan.lm_head.weight)


def test_whole_checkpoint_without_its_lora_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if "lora_B" not in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 12 of its weights.*lora_B"):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("offloaded", ["audio_tower", "language_model", "multi_modal_projector"])
@pytest.mark.parametrize("layer_mix", ["last", "learned"])
def test_parts_offloaded_to_disk_answer_the_same(offloaded, layer_mix, bases, tmp_path):
    model = learn_something(from_tiny_foundations(layer_mix=layer_mix))
    model.save_pretrained(tmp_path / "adapter")
    device_map = {"audio_tower": "cpu", "multi_modal_projector": "cpu", "language_model": "cpu"} | {offloaded: "disk"}
    loaded = AutoModel.from_pretrained(
        tmp_path / "adapter", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    inputs = tiny_processor(model)(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    if offloaded != "multi_modal_projector":  # which is kept on the main device all the same
        with pytest.raises(ValueError, match="Cannot merge an adapter while the model is spread"):
            loaded.merge_adapter()


def test_folder_of_the_same_name_does_not_stand_in_for_a_recorded_base(bases, tmp_path, monkeypatch):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    (tmp_path / "cwd" / "tiny-wavlm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    assert AutoModel.from_pretrained(tmp_path / "adapter").config.audio_base["id"] == "tiny-wavlm"


def test_snapshot_in_the_hub_cache_is_recorded_by_repository_and_commit(bases, tmp_path):
    snapshot = tmp_path / "models--org--tiny-wavlm" / "snapshots" / "abc123"
    shutil.copytree(bases / "tiny-wavlm", snapshot)
    model = SpeechVerseForConditionalGeneration.from_foundations(snapshot, "tiny-t5", lora_rank=2)
    assert (model.config.audio_base["id"], model.config.audio_base["revision"]) == ("org/tiny-wavlm", "abc123")


def test_fingerprint_reads_pickled_weights_of_any_age(tmp_path):
    tensors = {"a": torch.randn(50, 100), "b": torch.ones(3)}
    found = set()
    for zipped in (True, False):
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found.add(fingerprint(tmp_path))
    assert len(found) == 1


def test_fingerprint_tells_checkpoints_apart(tmp_path):
    save_file({"a": torch.zeros(5000), "b": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    original = fingerprint(tmp_path)
    changes = [
        {"a": torch.zeros(5000).index_fill(0, torch.tensor([7]), 1.0), "b": torch.ones(3, dtype=torch.bfloat16)},
        {"a": torch.zeros(5000), "b": torch.ones(3, dtype=torch.float16)},
        {"a": torch.zeros(50, 100), "b": torch.ones(3, dtype=torch.bfloat16)},
        {"a": torch.zeros(5000), "c": torch.ones(3, dtype=torch.bfloat16)},
    ]
    found = set()
    for tensors in changes:
        save_file(tensors, tmp_path / "model.safetensors")
        found.add(fingerprint(tmp_path))
    assert len(found) == 4 and original not in found


def test_fingerprint_does_not_depend_on_sharding(tmp_path, bases):
    model = AutoModel.from_pretrained(bases / "tiny-wavlm")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert fingerprint(tmp_path / "sharded") == fingerprint(bases / "tiny-wavlm")


# Format


def test_paper_size_adapter_takes_57_megabytes_in_bf16(tmp_path):
    with torch.device("meta"):
        model = SpeechVerseForConditionalGeneration(multitask(wavlm_large()))
    for name in ("audio_base", "text_base"):
        setattr(model.config, name, {"id": "org/base", "revision": None, "fingerprint": "0"})
    weights = {
        name: torch.zeros(p.shape, dtype=torch.bfloat16) for name, p in model.named_parameters() if p.requires_grad
    }
    model.save_pretrained(tmp_path, state_dict=weights)
    (file,) = tmp_path.glob("*.safetensors")
    assert 2 * 28_323_840 < file.stat().st_size < 57e6


def test_format_has_a_version(bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    assert config["format_version"] == 1
    file.write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(ValueError, match="of format 2; .* up to 1: upgrade speechverse, or .* does not import it"):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("version", [None, "1", 0, 1.0])
def test_format_that_is_no_number_is_refused(version):
    with pytest.raises(ValueError, match=rf"format_version is {version!r}; it must be a whole number of at least 1\."):
        SpeechVerseConfig(format_version=version)


def test_what_is_saved_is_of_the_present_format(monkeypatch):
    monkeypatch.setattr(configuration_speechverse, "FORMAT_VERSION", 2)
    assert inspect.signature(SpeechVerseConfig).parameters["format_version"].default == 1  # where there is no number
    assert SpeechVerseConfig().to_dict()["format_version"] == 2


# Code


class HomeMade(SpeechVerseForConditionalGeneration):
    """As a user may write one, in a file that does not come with the package."""


LOAD_WITHOUT_PACKAGE = """
import sys
sys.modules["speechverse"] = None  # importing it is now an error, as on a machine that lacks it
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1] + "/model", trust_remote_code=True)
inputs, expected = torch.load(sys.argv[1] + "/expected.pt")
assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)
"""


def test_subclass_is_saved_with_code_that_loads(model, inputs, tmp_path, caplog):
    ours = HomeMade(model.config)
    ours.load_state_dict(model.state_dict())
    with caplog.at_level("WARNING"):
        ours.save_pretrained(tmp_path / "model")
    assert "The code of HomeMade is not saved with the checkpoint: load it by HomeMade.from_pretrained" in caplog.text
    assert not (tmp_path / "model" / Path(__file__).name).exists()
    assert type(ours).__module__ == ours.__module__ == __name__
    assert type(HomeMade.from_pretrained(tmp_path / "model")) is HomeMade

    torch.save((dict(inputs), model.generate(**inputs, max_new_tokens=4)), tmp_path / "expected.pt")
    process = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_PACKAGE, tmp_path],
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr


# Bad checkpoints


def test_missing_base_says_how_to_get_it(bases, tmp_path, monkeypatch):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "elsewhere"))
    with pytest.raises(
        FileNotFoundError,
        match="'tiny-wavlm' is not a folder.*speechverse-foundations --source packages --out DIR tiny-",
    ):
        AutoModel.from_pretrained(tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match="`speechverse-foundations --out DIR mind`"):  # an original of the Hub
        find_named_base("org/mind")
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(
        tmp_path / "adapter", audio_base=bases / "tiny-wavlm", text_base=bases / "tiny-t5"
    )
    assert loaded.config.audio_base["id"] == "tiny-wavlm"


def test_base_is_found_by_what_its_folder_says_that_it_is(bases, tmp_path):
    source = bases / "tiny-wavlm" / "SOURCE.json"
    source.write_text('{"id": "org/whole", "origin": "packages", "revision": null}')
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    source.parent.rename(bases / "an-encoder-alone")
    for other, text in (("broken", "{"), ("list", "[]"), (".an-encoder-alone.partial", '{"id": "org/whole"}')):
        (bases / other).mkdir()
        (bases / other / "SOURCE.json").write_text(text)
    assert AutoModel.from_pretrained(tmp_path / "adapter").config.audio_base["id"] == "org/whole"


@pytest.mark.parametrize(
    "tamper, message",
    [
        (lambda t: t.pop("multi_modal_projector.blocks.0.conv.bias"), r"blocks\.0\.conv\.bias is missing"),
        (lambda t: t.update(stowaway=torch.ones(1)), "stowaway is not of this adapter"),
        (lambda t: t.update({"multi_modal_projector.blocks.0.conv.bias": torch.ones(7)}), r"is \(7,\) and must be \(24,\)"),
        (lambda t: t["multi_modal_projector.blocks.0.conv.bias"].fill_(float("nan")), "holds NaN"),
    ],
)  # fmt: skip
def test_tampered_adapter_is_refused(tamper, message, bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tamper(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(tmp_path)


def test_truncated_adapter_is_refused(bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short or altered"):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("loader", [SpeechVerseForConditionalGeneration, AutoModel])
def test_another_base_warns_with_both_fingerprints(loader, bases, tmp_path, caplog):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    other_audio, other_text = save_bases(tmp_path / "other", seed=1)
    with caplog.at_level("WARNING"):
        loaded = loader.from_pretrained(tmp_path / "adapter", audio_base=other_audio, text_base=bases / "tiny-t5")
    assert fingerprint(bases / "tiny-wavlm") in caplog.text and fingerprint(other_audio) in caplog.text
    assert fingerprint(bases / "tiny-t5") not in caplog.text
    assert loaded.config.audio_base["fingerprint"] == fingerprint(bases / "tiny-wavlm")  # what it was trained on


def test_base_of_another_shape_is_refused(bases, tmp_path):
    from_tiny_foundations().save_pretrained(tmp_path / "adapter")
    config = AUDIO_CONFIGS["wavlm"]()
    config.hidden_size = 64
    AutoModel.from_config(config).save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match="trained on tiny-wavlm with hidden_size=32.*has 64"):
        SpeechVerseForConditionalGeneration.from_pretrained(tmp_path / "adapter", audio_base=tmp_path / "wide")


def test_adapter_alone_needs_known_bases(model, tmp_path):
    with pytest.raises(ValueError, match="standalone=True"):
        model.save_pretrained(tmp_path, standalone=False)


# Several adapters


@pytest.fixture
def two_adapters(bases, tmp_path):
    """Folders of two adapters of different rank on the same bases, and each one's logits on one input."""
    logits = {}
    for seed, (name, rank) in enumerate({"first": 2, "second": 3}.items()):
        model = learn_something(from_tiny_foundations(lora_rank=rank), seed)
        inputs = tiny_processor(model)(text="say it", audio=noise(0.5), sampling_rate=16_000, text_target="red")
        logits[name] = model(**inputs).logits
        model.save_pretrained(tmp_path / name)
    return tmp_path, inputs, logits


def test_adapters_are_loaded_and_switched(two_adapters):
    folder, inputs, logits = two_adapters
    model = AutoModel.from_pretrained(folder / "first")
    model.load_adapter(folder / "second", "second")
    assert model.active_adapters() == ["second"]
    torch.testing.assert_close(model(**inputs).logits, logits["second"])
    model.set_adapter("default")
    torch.testing.assert_close(model(**inputs).logits, logits["first"])
    model.set_adapter("second")
    torch.testing.assert_close(model(**inputs).logits, logits["second"])

    model.save_pretrained(folder / "saved")
    torch.testing.assert_close(AutoModel.from_pretrained(folder / "saved")(**inputs).logits, logits["second"])
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learned and not any(".default." in name for name in learned)
    model.delete_adapter("default")
    assert not any(".default." in name for name, _ in model.named_parameters())


def test_adapter_mistakes_are_refused_and_change_nothing(two_adapters):
    folder, inputs, logits = two_adapters
    model = AutoModel.from_pretrained(folder / "first")
    with pytest.raises(ValueError, match="no adapter 'third'; loaded are default"):
        model.set_adapter("third")
    with pytest.raises(ValueError, match="'v1.0' cannot name an adapter"):
        model.load_adapter(folder / "second", "v1.0")
    with pytest.raises(ValueError, match="'default' is active"):
        model.delete_adapter("default")
    with pytest.raises(ValueError, match="an adapter 'default' already"):
        model.load_adapter(folder / "second", "default")
    from_tiny_foundations(projector_strides=[2, 1]).save_pretrained(folder / "denser")
    with pytest.raises(ValueError, match=r"has projector_strides=\[2, 1\], this model \[2, 2\]"):
        model.load_adapter(folder / "denser", "denser")
    tensors = load_file(folder / "second" / "model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "second" / "model.safetensors")
    with pytest.raises(ValueError, match="is missing"):
        model.load_adapter(folder / "second", "second")
    assert model.active_adapters() == ["default"]
    torch.testing.assert_close(model(**inputs).logits, logits["first"])


def test_adapter_dropout_sleeps_after_loading_and_switching(two_adapters):
    folder, inputs, _ = two_adapters
    from_tiny_foundations(lora_dropout=0.5).save_pretrained(folder / "dropping")
    model = AutoModel.from_pretrained(folder / "first")
    model.load_adapter(folder / "dropping", "dropping")
    assert not any(module.training for module in model.modules())
    model.train()
    model.set_adapter("default")
    model.eval()
    model.set_adapter("dropping")
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_active_adapter_is_the_one_saved_whole(two_adapters):
    folder, inputs, logits = two_adapters
    model = AutoModel.from_pretrained(folder / "first")
    model.load_adapter(folder / "second", "second")
    model.save_pretrained(folder / "whole", standalone=True)
    torch.testing.assert_close(AutoModel.from_pretrained(folder / "whole")(**inputs).logits, logits["second"])

    learn_something(from_tiny_foundations(lora_rank=None)).save_pretrained(folder / "projector-only")
    model.load_adapter(folder / "projector-only", "projector-only")
    model.save_pretrained(folder / "whole-without-lora", standalone=True)
    loaded = AutoModel.from_pretrained(folder / "whole-without-lora")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_adapter_with_an_encoder_of_its_own_cannot_be_switched(two_adapters):
    folder, _, _ = two_adapters
    from_tiny_foundations(freeze_audio_tower=False).save_pretrained(folder / "tuned")
    with pytest.raises(ValueError, match="encoder of its own"):
        AutoModel.from_pretrained(folder / "first").load_adapter(folder / "tuned", "tuned")


def test_merged_adapter_answers_the_same_and_is_saved_whole(two_adapters):
    folder, inputs, logits = two_adapters
    model = AutoModel.from_pretrained(folder / "first").merge_adapter()
    torch.testing.assert_close(model(**inputs).logits, logits["first"], atol=1e-4, rtol=0)
    assert not any("lora" in name for name, _ in model.named_parameters())
    model.save_pretrained(folder / "merged")
    loaded = AutoModel.from_pretrained(folder / "merged")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)

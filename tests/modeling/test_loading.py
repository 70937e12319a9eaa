"""Loading in other dtypes, quantised, in shards, spread over devices and the disk, and within little memory."""

import functools
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import AUDIO_CONFIGS, TEXT_CONFIGS, noise, save_bases, tiny_model, tiny_processor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    TorchAoConfig,
    pipeline,
)

from speechverse import SpeechVerseForConditionalGeneration


PAIRS = [("wavlm", "t5"), ("whisper", "t5"), ("wavlm", "llama")]
every_pair = pytest.mark.parametrize("audio, text", PAIRS)
every_checkpoint = pytest.mark.parametrize("checkpoint", ["adapter", "whole", "shards"])

ON_CPU = {"audio_tower": "cpu", "multi_modal_projector": "cpu", "language_model": "cpu"}
ON_DISK = {"": "disk"}


class Saved:
    """A model that has learned something, its bases and its checkpoints of every kind, and what it answers."""

    def __init__(self, folder: Path, audio: str, text: str, llm=None, **config):
        self.folder = folder
        self.bases = save_bases(folder / "bases", audio, text)
        if llm is not None:
            llm.save_pretrained(self.bases[1])
        self.model = self.from_foundations(lora_rank=2, **config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.model.save_pretrained(folder / "adapter")
        self.model.save_pretrained(folder / "whole", standalone=True)
        self.model.save_pretrained(folder / "shards", standalone=True, max_shard_size="20KB")
        self.processor = tiny_processor(self.model, audio, text)
        audio_input = {"audio": noise(0.5), "sampling_rate": 16_000}
        self.batch = self.processor(text="say it", text_target="red", **audio_input)
        self.question = self.processor(text="say it", **audio_input)

    def from_foundations(self, **kwargs):
        return SpeechVerseForConditionalGeneration.from_foundations(*map(str, self.bases), **kwargs)

    def load(self, checkpoint: str = "adapter", **kwargs):
        if checkpoint != "adapter":  # which needs no bases
            return AutoModel.from_pretrained(self.folder / checkpoint, **kwargs)
        return SpeechVerseForConditionalGeneration.from_pretrained(
            self.folder / checkpoint, audio_base=self.bases[0], text_base=self.bases[1], **kwargs
        )

    def answers(self, model) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            logits = model(**self.batch).logits.float()
        return logits, model.generate(**self.question, max_new_tokens=6, min_new_tokens=6, num_beams=2)

    def assert_answers_as(self, model, expected, **tolerance):
        logits, generated = self.answers(model)
        torch.testing.assert_close(logits, expected[0], **tolerance)
        assert torch.equal(generated, expected[1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Makes each pair's checkpoints once."""

    @functools.cache
    def of(audio="wavlm", text="t5", wide=False):
        return Saved(tmp_path_factory.mktemp("saved"), audio, text, llm=tiny_llm(text, **WIDE[text]) if wide else None)

    return of


def tiny_llm(text: str, tied: bool | None = None, **sizes):
    """A tiny LLM; its head is tied to its embeddings or not, as its kind is by default or as one says."""
    torch.manual_seed(0)
    config = TEXT_CONFIGS[text]()
    for name, size in sizes.items():
        setattr(config, name, size)
    auto_class = AutoModelForSeq2SeqLM if text == "t5" else AutoModelForCausalLM
    if tied is not None:
        config.tie_word_embeddings = tied
    llm = auto_class.from_config(config)
    if tied is False:
        llm.lm_head.weight = torch.nn.Parameter(torch.randn_like(llm.lm_head.weight))
    return llm


# bitsandbytes packs 64 weights of a row together.
WIDE = {
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 64},
    "llama": {"hidden_size": 64, "head_dim": 16, "intermediate_size": 64},
}


def learns(name: str) -> bool:
    return name.startswith("multi_modal_projector.") or ".lora_" in name


# dtype and attention


@every_checkpoint
@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype_is_that_of_the_frozen_parts(checkpoint, argument, dtype, saved):
    model = saved().load(checkpoint, **{argument: dtype})
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if learns(name) else torch.bfloat16), name


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype_of_new_models(argument, dtype, saved):
    model = saved().from_foundations(**{argument: dtype})
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if learns(name) else torch.bfloat16), name


@every_pair
@every_checkpoint
def test_checkpoint_answers_as_the_saved_model(checkpoint, audio, text, saved):
    saved = saved(audio, text)
    if checkpoint == "shards":
        assert len(list((saved.folder / "shards").glob("*.safetensors"))) > 2
    saved.assert_answers_as(saved.load(checkpoint), saved.answers(saved.model))


@pytest.mark.parametrize("spread", [False, True])
@every_checkpoint
def test_attention_implementation_is_the_llms(checkpoint, spread, saved, monkeypatch):
    saved = saved("wavlm", "llama")
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(saved.folder / "bases"))
    device_map = {"device_map": ON_CPU | {"audio_tower": "disk"}} if spread else {}
    for model_class in (AutoModel, SpeechVerseForConditionalGeneration):
        for wanted in ("sdpa", {"text_config": "sdpa", "audio_config": "eager"}):
            model = model_class.from_pretrained(saved.folder / checkpoint, attn_implementation=wanted, **device_map)
            assert model.language_model.config._attn_implementation == "sdpa"
            assert model.audio_tower.config._attn_implementation == "eager"
            saved.assert_answers_as(model, saved.answers(saved.model))


@pytest.mark.parametrize("audio", ["whisper", "moonshine"])
def test_only_the_encoder_of_a_base_with_a_decoder_is_loaded(audio, tmp_path, caplog):
    audio_folder, _ = save_bases(tmp_path, audio)
    expected = AutoModel.from_pretrained(audio_folder).encoder.state_dict()
    with caplog.at_level(logging.WARNING):
        model = SpeechVerseForConditionalGeneration.from_foundations(audio_folder, tmp_path / "tiny-t5", lora_rank=2)
    assert "UNEXPECTED" not in caplog.text
    found = model.audio_tower.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_base_without_a_part_of_its_encoder_is_refused(tmp_path):
    audio_folder, text_folder = save_bases(tmp_path, "whisper")
    tensors = load_file(audio_folder / "model.safetensors")
    del tensors["encoder.conv1.weight"]
    torch.save(tensors, audio_folder / "pytorch_model.bin")
    (audio_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks 1 weights of the audio_tower: conv1.weight"):
        SpeechVerseForConditionalGeneration.from_foundations(audio_folder, text_folder)


# Several devices and the disk


def maps_of(text: str) -> dict[str, dict]:
    embeddings, layers = {
        "t5": ("language_model.shared", "language_model.encoder"),
        "llama": ("language_model.model.embed_tokens", "language_model.model.layers.1"),
    }[text]
    return {
        "everything on disk": {"device_map": ON_DISK},
        "encoder on disk": {"device_map": ON_CPU | {"audio_tower": "disk"}},
        "LLM on disk": {"device_map": ON_CPU | {"language_model": "disk"}},
        "layers on disk": {"device_map": {"": "cpu", "audio_tower.encoder.layers.1": "disk", layers: "disk"}},
        "embeddings kept": {"device_map": {"": "disk", embeddings: "cpu"}},
        "as memory allows": {"device_map": "auto", "max_memory": {"cpu": "120KB"}},
        "in sequence": {"device_map": "sequential", "max_memory": {"cpu": "120KB"}},
    }


@every_pair
@every_checkpoint
@pytest.mark.parametrize("where", maps_of("t5"))
def test_spread_model_answers_the_same(where, checkpoint, audio, text, saved):
    saved = saved(audio, text)
    arguments = maps_of(text)[where]
    model = saved.load(checkpoint, **arguments)
    assert "disk" in model.hf_device_map.values()
    offloaded = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    assert offloaded and not any(learns(name) for name in offloaded)
    assert model.device.type == "cpu"
    saved.assert_answers_as(model, saved.answers(saved.model))


@pytest.mark.parametrize("where", maps_of("t5"))
def test_pipeline_of_a_spread_model_answers_the_same(where, saved, monkeypatch):
    saved = saved()
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(saved.folder / "bases"))
    saved.processor.save_pretrained(saved.folder / "adapter")
    folder = str(saved.folder / "adapter")
    ask = pipeline("speech-instruction", model=folder, model_kwargs=maps_of("t5")[where])
    assert "disk" in ask.model.hf_device_map.values() and ask.device.type == "cpu"
    [text] = saved.processor.batch_decode(saved.answers(saved.model)[1], skip_special_tokens=True)
    recording = {"audio": noise(0.5), "sampling_rate": 16_000}
    assert ask(recording, "say it", max_new_tokens=6, min_new_tokens=6, num_beams=2)["text"] == text.strip()


@every_pair
def test_strategy_that_finds_room_offloads_nothing(audio, text, saved):
    saved = saved(audio, text)
    model = saved.load(device_map="auto", max_memory={"cpu": "1GB"})
    assert not hasattr(model, "hf_device_map")
    saved.assert_answers_as(model, saved.answers(saved.model))


def test_nothing_is_copied_to_the_offload_folder_that_can_stay_in_its_checkpoint(saved, tmp_path):
    saved().load(device_map=ON_DISK, offload_folder=tmp_path / "offload")
    assert not [file for file in (tmp_path / "offload").rglob("*") if file.is_file()]


def test_offload_folder_of_another_model_does_no_harm(saved, tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"layer.weight": {"dtype": "float32", "shape": [2]}}))
    saved = saved()
    model = saved.load(device_map=ON_DISK, offload_folder=tmp_path)
    saved.assert_answers_as(model, saved.answers(saved.model))


def test_pickled_bases_are_offloaded_as_well(tmp_path):
    saved = Saved(tmp_path, "whisper", "t5")
    for base in saved.bases:
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="provide an `offload_folder`"):
        saved.load(device_map=ON_DISK)
    model = saved.load(device_map=ON_DISK, offload_folder=tmp_path / "offload")
    saved.assert_answers_as(model, saved.answers(saved.model))


@pytest.mark.parametrize("text", ["t5", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_tied_and_untied_heads_survive_offloading(tied, text, tmp_path):
    saved = Saved(tmp_path, "wavlm", text, llm=tiny_llm(text, tied))
    for checkpoint in ("adapter", "whole"):
        model = saved.load(checkpoint, device_map=ON_DISK)
        assert model.config.text_config.tie_word_embeddings == tied
        saved.assert_answers_as(model, saved.answers(saved.model))
        model.tie_weights()
        saved.assert_answers_as(model, saved.answers(saved.model))


@every_pair
@every_checkpoint
def test_spread_model_is_saved(checkpoint, audio, text, saved, tmp_path):
    saved = saved(audio, text)
    model = saved.load(checkpoint, device_map=ON_DISK)
    model.save_pretrained(tmp_path / "adapter")
    learned = load_file(saved.folder / "adapter" / "model.safetensors")
    found = load_file(tmp_path / "adapter" / "model.safetensors")
    assert found.keys() == learned.keys() and all(torch.equal(found[key], learned[key]) for key in learned)
    model.save_pretrained(tmp_path / "whole", standalone=True)
    loaded = AutoModel.from_pretrained(tmp_path / "whole")
    saved.assert_answers_as(loaded, saved.answers(saved.model))


def test_new_model_on_disk_starts_as_one_in_memory(saved):
    saved = saved()
    models = [saved.from_foundations(lora_rank=2, device_map=device_map) for device_map in (None, ON_DISK)]
    norms = [model.multi_modal_projector.blocks[-1].norm.weight for model in models]
    torch.testing.assert_close(norms[1], norms[0])
    lora = {name: p for name, p in models[1].named_parameters() if ".lora_" in name}
    assert all((p == 0).all() if "lora_B" in name else 0 < p.std() < 1 for name, p in lora.items())


def test_adapter_learns_beside_an_offloaded_llm(saved):
    saved = saved()
    models = [saved.load(device_map=device_map).train() for device_map in (None, ON_DISK)]
    for model in models:
        model(**saved.batch).loss.backward()
    expected = {name: p.grad for name, p in models[0].named_parameters() if p.requires_grad}
    found = {name: p.grad for name, p in models[1].named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_adapters_are_switched_beside_an_offloaded_llm(saved, tmp_path):
    saved = saved()
    other = saved.load()
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.mul_(-0.5)
    other.save_pretrained(tmp_path)
    model = saved.load(device_map=ON_DISK)
    model.load_adapter(tmp_path, "other")
    saved.assert_answers_as(model, saved.answers(other))
    model.set_adapter("default")
    saved.assert_answers_as(model, saved.answers(saved.model))
    with pytest.raises(ValueError, match="Cannot merge an adapter while the model is spread"):
        model.merge_adapter()


@pytest.mark.parametrize("checkpoint", ["adapter", "whole"])
def test_encoder_that_learned_is_not_offloaded(checkpoint, tmp_path):
    saved = Saved(tmp_path, "wavlm", "t5", freeze_audio_tower=False)
    model = saved.load(checkpoint, device_map=ON_DISK)
    assert not any(parameter.is_meta for parameter in model.audio_tower.parameters())
    saved.assert_answers_as(model, saved.answers(saved.model))


def test_map_that_leaves_parts_out_is_refused(saved):
    with pytest.raises(ValueError, match="device_map has no device for audio_tower"):
        saved().load(device_map={"language_model": "disk"})


# Quantised


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def int8_of_torchao():
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


QUANTISERS = {
    "torchao-int8": ("torchao", int8_of_torchao),
    "bitsandbytes-int8": ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_8bit=True)),
    "bitsandbytes-nf4": (
        "bitsandbytes",
        lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    ),
}
LORA_LAYERS = {
    "torchao-int8": "TorchaoLoraLinear",
    "bitsandbytes-int8": "Linear8bitLt",
    "bitsandbytes-nf4": "Linear4bit",
}


@pytest.fixture(params=QUANTISERS)
def quantiser(request):
    library, make_config = QUANTISERS[request.param]
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    return request.param, make_config


@every_pair
@every_checkpoint
def test_llm_alone_is_quantised(checkpoint, quantiser, audio, text, saved, tmp_path):
    name, make_config = quantiser
    saved = saved(audio, text, wide=True)
    model = saved.load(checkpoint, quantization_config=make_config())
    layers = [layer for _, layer in model._lora_layers()]
    assert layers and all(type(layer).__name__ == LORA_LAYERS[name] for layer in layers)
    plain = saved.model.state_dict()
    for key, tensor in model.state_dict().items():
        if key.startswith(("audio_tower.", "multi_modal_projector.")) or ".lora_" in key:
            assert torch.equal(tensor, plain[key]), key
    logits, _ = saved.answers(model)
    exact = saved.answers(saved.model)[0]
    assert 0 < (logits - exact).abs().mean() < (0.5 if "nf4" in name else 0.05) * exact.std()


@every_pair
def test_quantised_model_learns_and_comes_back(quantiser, audio, text, saved, tmp_path):
    _, make_config = quantiser
    saved = saved(audio, text, wide=True)
    model = saved.load(quantization_config=make_config()).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    before = model(**saved.batch).loss
    before.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == learns(parameter_name), parameter_name
        assert not learns(parameter_name) or parameter.grad.abs().sum() > 0, parameter_name
    optimizer.step()
    assert model(**saved.batch).loss < before
    model.eval().save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    bases = {"audio_base": saved.bases[0], "text_base": saved.bases[1]}
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path, quantization_config=make_config(), **bases)
    saved.assert_answers_as(loaded, saved.answers(model), atol=0, rtol=0)
    plain = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path, **bases)
    assert not getattr(plain.language_model, "is_quantized", False)


def test_base_that_is_itself_quantised_needs_no_argument(tmp_path):
    pytest.importorskip("bitsandbytes", reason="makes the quantised base")
    saved = Saved(tmp_path, "wavlm", "t5", llm=tiny_llm("t5", **WIDE["t5"]))
    quantised = AutoModelForSeq2SeqLM.from_pretrained(
        saved.bases[1], quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )
    (saved.bases[1] / "model.safetensors").unlink()
    quantised.save_pretrained(saved.bases[1])
    model = saved.from_foundations(lora_rank=2)
    assert model.language_model.is_quantized
    model.save_pretrained(tmp_path / "adapter")
    saved.assert_answers_as(saved.load(), saved.answers(model), atol=0, rtol=0)


def test_quantised_llm_has_its_limits_said(quantiser, saved, tmp_path):
    _, make_config = quantiser
    saved = saved(wide=True)
    model = saved.load(quantization_config=make_config())
    with pytest.raises(ValueError, match="Cannot merge an adapter while the LLM is quantised"):
        model.merge_adapter()
    with pytest.raises(ValueError, match="Cannot save the whole model while the LLM is quantised"):
        model.save_pretrained(tmp_path, standalone=True)
    with pytest.raises(ValueError, match="A quantised LLM cannot be offloaded"):
        saved.load(quantization_config=make_config(), device_map=ON_DISK)


def test_quantised_llm_beside_an_encoder_on_disk(quantiser, saved):
    _, make_config = quantiser
    saved = saved(wide=True)
    expected = saved.answers(saved.load(quantization_config=make_config()))
    device_map = ON_CPU | {"audio_tower": "disk"}
    saved.assert_answers_as(saved.load(quantization_config=make_config(), device_map=device_map), expected)
    saved.assert_answers_as(saved.load(quantization_config=make_config(), device_map="auto"), expected)


def test_quantised_layers_are_counted_at_their_size(quantiser, saved):
    """What fits once quantised is not offloaded."""
    _, make_config = quantiser
    saved = saved("wavlm", "llama", wide=True)
    layers = sum(p.numel() for n, p in saved.model.named_parameters() if n.startswith("language_model.model.layers"))
    everything = sum(4 * p.numel() for p in saved.model.parameters())
    memory = {"cpu": everything - 2 * layers}
    assert hasattr(saved.load(device_map="auto", max_memory=memory), "hf_device_map")
    saved.load(device_map="auto", max_memory=memory, quantization_config=make_config())


# Memory


MEASURE = """
import sys
from pathlib import Path
import torch
from speechverse import SpeechVerseForConditionalGeneration

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

def load_and_use(folder, device_map):
    bases = Path(folder).parent / "bases"
    arguments = {} if device_map == "none" else {"device_map": {"": device_map}}
    model = SpeechVerseForConditionalGeneration.from_pretrained(
        folder, audio_base=bases / "tiny-wavlm", text_base=bases / "tiny-t5", **arguments
    )
    token = model.config.audio_token_id
    with torch.no_grad():
        model(input_ids=torch.tensor([[token, token, 5]]), labels=torch.tensor([[6, 7, 1]]),
              input_values=torch.zeros(1, 2000))
    return model

tiny, folder, device_map = sys.argv[1:]
load_and_use(tiny, device_map)  # imports what is imported late
before = peak()
model = load_and_use(folder, device_map)
print(peak() - before)
"""


def save_with_bases_beside_it(folder: Path, audio_config, text_config, dtype) -> Path:
    """Saves bases of a `dtype`, a model's adapter and the whole model; returns where the bases are."""
    audio_folder, text_folder = save_bases(folder / "bases")
    AutoModel.from_config(audio_config).to(dtype).save_pretrained(audio_folder)
    AutoModelForSeq2SeqLM.from_config(text_config).to(dtype).save_pretrained(text_folder)
    model = SpeechVerseForConditionalGeneration.from_foundations(audio_folder, text_folder)
    model.save_pretrained(folder / "adapter")
    model.save_pretrained(folder / "whole", standalone=True)
    model.save_pretrained(folder / "shards", standalone=True, max_shard_size="50MB")
    return folder


@pytest.fixture(scope="module")
def middle_sized(tmp_path_factory):
    """Folders of a tiny model and of one of some 60 million parameters, all in bf16."""
    tiny = save_with_bases_beside_it(
        tmp_path_factory.mktemp("tiny"), AUDIO_CONFIGS["wavlm"](), TEXT_CONFIGS["t5"](), torch.bfloat16
    )
    audio_config, text_config = AUDIO_CONFIGS["wavlm"](), TEXT_CONFIGS["t5"]()
    audio_config.hidden_size, audio_config.intermediate_size, audio_config.num_hidden_layers = 512, 2048, 8
    text_config.d_model, text_config.d_kv, text_config.d_ff = 512, 128, 2048
    text_config.num_layers = text_config.num_decoder_layers = 4
    return tiny, save_with_bases_beside_it(
        tmp_path_factory.mktemp("middle"), audio_config, text_config, torch.bfloat16
    )


def memory_to_load(tiny: Path, middle: Path, checkpoint: str, device_map: str) -> float:
    """Peak memory of loading and one step, against the size of the weights."""
    command = [sys.executable, "-c", MEASURE, tiny / checkpoint, middle / checkpoint, device_map]
    size = sum(file.stat().st_size for file in (middle / "whole").glob("*.safetensors"))
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    return int(run.stdout) / size


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process's memory from /proc")
@pytest.mark.parametrize(
    "checkpoint, device_map, bound",
    [("adapter", "none", 1.3), ("whole", "none", 1.3), ("shards", "none", 1.3), ("adapter", "disk", 0.6), ("shards", "disk", 0.6)],
)  # fmt: skip
def test_no_weight_is_held_twice(checkpoint, device_map, bound, middle_sized):
    assert memory_to_load(*middle_sized, checkpoint, device_map) < bound


@every_pair
def test_model_on_the_meta_device_holds_nothing(audio, text):
    config = tiny_model(audio, text).config
    with torch.device("meta"):
        model = SpeechVerseForConditionalGeneration(config)
    held = {name for name, parameter in model.named_parameters() if not parameter.is_meta}
    assert held <= {"audio_tower.masked_spec_embed"}  # which transformers makes in memory, whatever the context

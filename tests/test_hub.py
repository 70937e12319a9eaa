"""From the Hub and back, in processes of their own, over real HTTP."""

import json
import subprocess
import sys
import textwrap

import pytest
from hub_standin import HubStandIn
from tiny_models import save_bases


# Every script below begins so. Without the package, importing it is an error, as on a machine that lacks it.
PREAMBLE = """
    import json, sys
    import torch
    if {without_package}:
        sys.modules["speechverse"] = None
    else:
        import speechverse
    from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

    tmp_path = {tmp_path!r}
    trust = {without_package} or None
    expected = tmp_path + "/expected.pt"

    def logits(name, **arguments):
        inputs, labels, _ = torch.load(expected)
        model = AutoModel.from_pretrained(name, trust_remote_code=trust, **arguments)
        return model(**inputs, labels=labels).logits

    def difference(name, **arguments):
        return (logits(name, **arguments) - torch.load(expected)[2]).abs().max().item()

    def error_of(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except Exception as error:
            return f"{{type(error).__name__}}: {{error}}"
"""

MAKE = """
    from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor
    from speechverse.model_cards.publish import publish

    torch.manual_seed(0)
    model = SpeechVerseForConditionalGeneration.from_foundations("org/tiny-wavlm", "org/tiny-t5", lora_rank=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    processor = SpeechVerseProcessor.for_model(model)
    wave = 0.1 * torch.randn(16_000)
    inputs = dict(processor(text="which colour ?", audio=wave.numpy(), sampling_rate=16_000))
    labels = torch.tensor([[6, 1]])
    torch.save((inputs, labels, model(**inputs, labels=labels).logits.detach()), expected)
    model.save_pretrained(tmp_path + "/run")
    processor.save_pretrained(tmp_path + "/run")
    publish(tmp_path + "/run", "org/tiny")
    report = {"audio_base": model.config.audio_base, "text_base": model.config.text_base}
"""

LOAD_WITHOUT_PACKAGE = """
    model = AutoModel.from_pretrained("org/tiny", trust_remote_code=True)
    processor = AutoProcessor.from_pretrained("org/tiny", trust_remote_code=True)
    ask = pipeline("speech-instruction", model="org/tiny", trust_remote_code=True)
    answer = ask({"audio": torch.zeros(16_000).add(0.1).numpy(), "sampling_rate": 16_000}, "say it", max_new_tokens=3)
    model.save_pretrained(tmp_path + "/again")
    processor.save_pretrained(tmp_path + "/again")
    report = {
        "difference": difference("org/tiny"),
        "module": type(model).__module__,
        "answer": answer,
        "as_seq2seq": type(AutoModelForSeq2SeqLM.from_pretrained("org/tiny", trust_remote_code=True)).__name__,
        "untrusted": error_of(AutoModel.from_pretrained, "org/tiny", trust_remote_code=False),
    }
"""

LOAD_OFFLINE = """
    again = pipeline("speech-instruction", model=tmp_path + "/again", trust_remote_code=True)
    report = {
        "from cache": difference("org/tiny"),
        "saved again": difference(tmp_path + "/again"),
        "pipeline": type(again).__name__,
        "not in cache": error_of(AutoModel.from_pretrained, "org/other", trust_remote_code=True),
    }
"""

LOAD_WITH_PACKAGE = """
    import logging
    from pathlib import Path
    from transformers.utils import logging as transformers_logging
    from speechverse.processing import default_model

    default_model.PUBLISHED_CHECKPOINTS = Path(tmp_path)  # as where the package is installed, and no checkout

    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    transformers_logging.get_logger("speechverse").addHandler(handler)
    load = AutoModel.from_pretrained
    report = {
        "module": type(load("org/tiny")).__module__,
        "pipeline": type(pipeline("speech-instruction", model="org/tiny")).__module__,
        "main": difference("org/tiny"),
        "tag": difference("org/tiny", revision="v1"),
        "branch": logits("org/tiny", revision="zeros").isfinite().all().item() and difference("org/tiny", revision="zeros"),
        "quiet": list(warnings),
        "other base": difference("org/tiny", text_base="org/other-t5"),
        "warning": "".join(warnings),
        "missing repository": error_of(load, "org/missing"),
        "missing revision": error_of(load, "org/tiny", revision="v9"),
        "gated": error_of(load, "other/gated"),
        "gated base": error_of(load, "org/tiny", text_base="other/gated-t5"),
        "missing base": error_of(load, "org/tiny", text_base="org/missing-t5"),
        "default": error_of(pipeline, "speech-instruction"),
    }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def module_hub(folder):
    """A Hub that has two bases, one of them also with other weights, and gated repositories of somebody else's."""
    with HubStandIn() as hub:
        for seed, prefix in ((0, "org/tiny"), (1, "org/other")):
            for base in save_bases(folder / f"bases-{seed}", seed=seed):
                files = {file.name: file.read_bytes() for file in base.iterdir()}
                hub.create_repository(f"{prefix}-{base.name.split('-')[1]}", files)
        hub.create_repository("other/gated", {"config.json": b"{}"}, gated=True)
        hub.create_repository("other/gated-t5", hub.repositories["org/tiny-t5"].files(), gated=True)
        yield hub
        assert hub.unhandled == []


@pytest.fixture(scope="module")
def run_script(folder, module_hub):
    """Runs a script and gives back the `report` that it makes."""

    def run(script: str, *, home="home", without_package=False, offline=False) -> dict:
        environment = module_hub.environment(folder / home) | {"OMP_NUM_THREADS": "1"}
        if offline:
            environment["HF_HUB_OFFLINE"] = "1"
        head = PREAMBLE.format(without_package=without_package, tmp_path=str(folder))
        code = textwrap.dedent(head) + textwrap.dedent(script) + "\nprint(json.dumps(report))"
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        return json.loads(ended.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def published(run_script, module_hub):
    return run_script(MAKE)


def test_bases_are_recorded_by_repository_and_commit(published, module_hub):
    for name, base in published.items():
        repository = {"audio_base": "org/tiny-wavlm", "text_base": "org/tiny-t5"}[name]
        assert (base["id"], base["revision"]) == (repository, module_hub.repositories[repository].branches["main"])


def test_loads_where_the_package_is_not_installed(published, run_script, module_hub):
    report = run_script(LOAD_WITHOUT_PACKAGE, home="fresh", without_package=True)
    assert report["difference"] == 0
    assert report["module"].startswith("transformers_modules.org.tiny.")
    assert report["answer"].keys() - {"truncated"} == {"text", "answer"}
    assert report["as_seq2seq"] == "SpeechVerseForConditionalGeneration"
    assert "trust_remote_code=True" in report["untrusted"]

    requests = len(module_hub.requests)
    report = run_script(LOAD_OFFLINE, home="fresh", without_package=True, offline=True)
    assert report["from cache"] == report["saved again"] == 0
    assert report["pipeline"] == "SpeechInstructionPipeline"
    assert "couldn't find them in the cached files" in report["not in cache"]
    assert len(module_hub.requests) == requests


def test_loads_without_a_flag_where_the_package_is_installed(published, run_script, module_hub):
    repository = module_hub.repositories["org/tiny"]
    repository.tag("v1")
    weights = repository.files()["model.safetensors"]
    header = 8 + int.from_bytes(weights[:8], "little")
    zeros = weights[:header] + bytes(len(weights) - header)
    repository.commit(repository.files() | {"model.safetensors": zeros}, "Forget everything", branch="zeros")

    report = run_script(LOAD_WITH_PACKAGE, home="installed")
    assert report["module"] == "speechverse.modeling_speechverse.modeling_speechverse"
    assert report["pipeline"] == "speechverse.processing.pipeline_speechverse"
    assert report["main"] == report["tag"] == 0 < report["branch"]
    assert not report["quiet"]
    assert report["other base"] > 0 and "trained on org/tiny-t5 with fingerprint" in report["warning"]
    assert "org/missing is not a" in report["missing repository"]
    assert "v9 is not a valid" in report["missing revision"]
    assert "gated" in report["gated"]
    assert "'other/gated-t5'" in report["gated base"] and "it is gated: accept its terms" in report["gated base"]
    assert "'org/missing-t5'" in report["missing base"] and "has no such repository" in report["missing base"]
    assert "speechverse/speechverse-mini" in report["default"] and "model=..." in report["default"]

"""One command, one commit, over real HTTP."""

import json
import shutil
import sys

import pytest
import torch
from hub_standin import HubStandIn
from huggingface_hub import HfApi, ModelCard
from suite_results import results_of
from tiny_models import save_bases

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.model_cards import publish


pytestmark = pytest.mark.usefixtures("hub_in_process")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint whose bases the Hub has."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = SpeechVerseForConditionalGeneration.from_foundations(*map(str, save_bases(folder)), lora_rank=2)
    processor = SpeechVerseProcessor.for_model(model)
    model.config.audio_base |= {"id": "org/tiny-wavlm"}
    model.config.text_base |= {"id": "org/tiny-t5"}
    model.save_pretrained(folder / "run")
    processor.save_pretrained(folder / "run")
    return folder / "run"


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


@pytest.fixture
def command(run, monkeypatch):
    def call(*options):
        monkeypatch.setattr(sys, "argv", ["publish.py", str(run), "org/tiny", *options])
        publish.main()

    return call


def test_everything_comes_as_one_commit(hub, command, capsys):
    hub.create_repository("org/tiny-t5", {"README.md": b"---\nlicense: mit\n---\n"})
    command("--license", "cc-by-4.0")
    repository = hub.repositories["org/tiny"]
    assert [commit.title for commit in repository.history()] == ["Publish tiny", "initial commit"]
    assert not repository.private
    assert {"config.json", "model.safetensors", "modeling_speechverse.py", "tasks.json"} <= repository.files().keys()
    assert capsys.readouterr().out.strip().endswith(f"/org/tiny/commit/{repository.branches['main']}")
    card = ModelCard(repository.files()["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and card.data.base_model == ["org/tiny-wavlm", "org/tiny-t5"]
    assert "| LLM, frozen | [org/tiny-t5](https://huggingface.co/org/tiny-t5) | - | mit |" in card.text
    assert hub.requests_for("POST /api/validate-yaml")


def test_results_come_with_it_and_the_hub_reads_them(hub, command, run):
    (run / "evaluation" / "colours").mkdir(parents=True)
    (run / "evaluation" / "colours" / "results.json").write_text(json.dumps(results_of(run)))
    (run / "evaluation" / "colours" / "samples.jsonl").write_text("{}\n")
    old = dict.fromkeys(
        ["evaluation/older/results.json", "evaluation/mine/notes.md", "evaluation/a/b/results.json"], b""
    )
    hub.create_repository("org/tiny", old)
    command("--co2-grams", "12.5", "--co2-source", "codecarbon")
    files = hub.repositories["org/tiny"].files()
    assert {
        "evaluation/mine/notes.md",
        "evaluation/a/b/results.json",
        "evaluation/colours/results.json",
    } <= files.keys()
    assert not {"evaluation/older/results.json", "evaluation/colours/samples.jsonl"} & files.keys()
    info = HfApi().model_info("org/tiny")
    assert [result.metric_value for result in info.card_data.eval_results] == [75.0, 21.05, 10.0]
    assert info.card_data.co2_eq_emissions["emissions"] == 12.5


def test_emissions_without_their_source_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        command("--co2-grams", "12.5")
    assert "--co2-grams and --co2-source go together" in capsys.readouterr().err


def test_private(hub, command):
    command("--private")
    assert hub.repositories["org/tiny"].private
    command("--private", "--message", "Once more")  # it is private already; nothing has changed
    assert len(hub.repositories["org/tiny"].history()) == 2


def test_public_repository_is_not_taken_for_private(hub, command):
    hub.create_repository("org/tiny")
    with pytest.raises(SystemExit, match="org/tiny is there already and is public"):
        command("--private")
    assert len(hub.repositories["org/tiny"].history()) == 1


def test_branch_is_made(hub, command):
    command("--branch", "rank-2")
    repository = hub.repositories["org/tiny"]
    assert "model.safetensors" in repository.files("rank-2") and "model.safetensors" not in repository.files("main")


def test_pull_request(hub, command, capsys):
    with pytest.raises(SystemExit, match="no repository org/tiny"):
        command("--pull-request")
    repository = hub.create_repository("org/tiny")
    command("--pull-request")
    assert len(repository.pull_requests) == 1
    assert "model.safetensors" in repository.files("refs/pr/1") and "model.safetensors" not in repository.files("main")
    assert "/org/tiny/discussions/1" in capsys.readouterr().out


def test_earlier_release_is_replaced_and_the_rest_stays(hub, command, caplog):
    outdated = {"model-00001-of-00002.safetensors", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"}
    others = {"handler.py", "examples/demo.py", "rank-16/model.safetensors", "diagram.png"}
    hub.create_repository("org/tiny", dict.fromkeys(outdated | others | {"README.md"}, b"old"))
    command()
    files = hub.repositories["org/tiny"].files()
    assert others <= files.keys() and not outdated & files.keys()
    assert all(name in caplog.text for name in outdated | {"README.md"})


def test_processor_with_several_chat_templates(hub, command, run):
    (run / "additional_chat_templates").mkdir()
    (run / "chat_template.jinja").write_text("{{ messages }}")
    (run / "additional_chat_templates" / "short.jinja").write_text("{{ messages[0] }}")
    command()
    assert "additional_chat_templates/short.jinja" in hub.repositories["org/tiny"].files()


@pytest.mark.parametrize(
    ("broken", "status"), [("PUT /lfs/", 507), ("POST .*/commit/", 500), ("POST .*/commit/", None)]
)
def test_interrupted_upload_is_resumed(hub, command, broken, status):
    hub.fail_next(broken, status=status)  # None cuts the connection
    with pytest.raises(SystemExit, match="give the command again"):
        command()
    assert len(hub.repositories["org/tiny"].history()) == 1  # nothing half-done is seen
    received = len(hub.repositories["org/tiny"].lfs_objects)
    command()
    assert len(hub.repositories["org/tiny"].history()) == 2
    sent = [request.path for request in hub.requests_for("PUT /lfs/") if request.status == 200]
    assert len(sent) == len(set(sent)), "what the Hub had was sent again"
    assert received in (0, len(sent))


@pytest.mark.parametrize(
    ("token", "words"), [(None, "log in with `hf auth login`"), (HubStandIn.STRANGER, "The Hub refused")]
)
def test_who_may_not_publish_is_told(token, words, command, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit, match=words):
        command()


def test_card_that_the_hub_refuses_stops_the_release(hub, command):
    with pytest.raises(SystemExit, match="license"):
        command("--license", "my-own")
    assert "org/tiny" not in hub.repositories


def test_unreachable_hub_is_told(hub, command):
    hub.stop()
    with pytest.raises(SystemExit, match="The Hub cannot be reached.*give the command again"):
        command()


def test_saving_and_pushing_in_one_call_sends_everything(hub, run, tmp_path):
    SpeechVerseProcessor.from_pretrained(run).save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="org/mine")
    sent = hub.repositories["org/mine"].files()
    assert {"tasks.json", "tokenizer.json", "processing_speechverse.py", "pipeline_speechverse.py"} <= sent.keys()

"""The stand-in for the Hub, held against the client that it is made for."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hub_standin import HubStandIn
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx


WEIGHTS = bytes(range(256)) * 64
CARD = """---
license: apache-2.0
language: [en, de]
library_name: transformers
pipeline_tag: automatic-speech-recognition
tags: [speech]
base_model: org/base
model-index:
- name: model
  results:
  - task: {type: automatic-speech-recognition}
    dataset: {type: org/corpus, name: Corpus}
    metrics:
    - {type: wer, value: 3.5}
---
# Model
"""


@pytest.fixture
def client(hub, hub_in_process, monkeypatch):
    """The client's API, with the token that a test gives it."""
    monkeypatch.setenv("HF_TOKEN", "must-not-be-sent")
    return lambda token=HubStandIn.OWNER: HfApi(endpoint=hub.url, token=token)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "speechverse", "auto_map": {}}')
    (folder / "README.md").write_text(CARD)
    (folder / "additional_chat_templates" / "short.jinja").write_text("{{ messages }}")
    (folder / "empty.bin").touch()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def test_a_folder_becomes_one_commit(hub, client, folder):
    api = client()
    assert api.whoami()["name"] == "tester"
    url = api.create_repo("org/model", private=True)
    assert url.repo_id == "org/model" and str(url) == f"{hub.url}/org/model"
    info = api.upload_folder(repo_id="org/model", folder_path=folder, commit_message="Upload model")

    repository = hub.repositories["org/model"]
    assert repository.private
    assert [commit.title for commit in repository.history()] == ["Upload model", "initial commit"]
    assert info.oid == repository.branches["main"] and info.commit_url == f"{url}/commit/{info.oid}"
    uploaded = repository.files()
    assert uploaded.pop(".gitattributes")
    assert uploaded == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    in_lfs = {path for path, blob in repository.resolve().files.items() if blob.lfs}
    assert in_lfs == {"model.safetensors"}  # an empty file never is
    assert len(hub.requests_for("POST .*/commit/main")) == len(hub.requests_for("PUT /lfs/")) == 1

    again = api.upload_folder(repo_id="org/model", folder_path=folder, commit_message="Upload model")
    assert again.oid == info.oid and len(repository.commits) == 2
    assert [commit.commit_id for commit in api.list_repo_commits("org/model")] == [
        commit.sha for commit in repository.history()
    ]


def test_a_repository_that_exists(hub, client):
    api = client()
    api.create_repo("mine")  # without a namespace: the user's
    assert api.create_repo("tester/mine", exist_ok=True).repo_id == "tester/mine"
    with pytest.raises(HfHubHTTPError, match="already created") as error:
        api.create_repo("tester/mine")
    assert error.value.response.status_code == 409
    with pytest.raises(HfHubHTTPError, match="rights") as error:
        api.create_repo("elsewhere/model")
    assert error.value.response.status_code == 403
    assert list(hub.repositories) == ["tester/mine"]
    api.create_repo("org/corpus", repo_type="dataset")
    assert hub.repositories["datasets/org/corpus"].kind == "dataset"


def test_branches_tags_and_pull_requests(hub, client, folder):
    api, repository = client(), hub.create_repository("org/model", {"a.txt": b"main"})
    api.create_branch("org/model", branch="dev")
    api.create_branch("org/model", branch="dev", exist_ok=True)
    api.upload_folder(repo_id="org/model", folder_path=folder, revision="dev")
    api.create_tag("org/model", tag="v1", revision="dev")
    assert "model.safetensors" in repository.files("v1") and "model.safetensors" not in repository.files()

    info = api.upload_folder(repo_id="org/model", folder_path=folder, commit_message="Better", create_pr=True)
    assert info.pr_revision == "refs/pr/1" and info.pr_num == 1
    assert repository.files("refs/pr/1")["a.txt"] == b"main" and "config.json" not in repository.files()
    assert [discussion.title for discussion in api.get_repo_discussions("org/model")] == ["Better"]

    refs = api.list_repo_refs("org/model", include_pull_requests=True)
    assert {branch.name: branch.target_commit for branch in refs.branches} == repository.branches
    assert [tag.ref for tag in refs.tags] == ["refs/tags/v1"]
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    with pytest.raises(RevisionNotFoundError):
        api.upload_folder(repo_id="org/model", folder_path=folder, revision="missing")

    # A stranger may not push, but may propose.
    stranger = client(HubStandIn.STRANGER)
    change = CommitOperationAdd("b.txt", b"b")
    with pytest.raises(HfHubHTTPError, match="write access"):
        stranger.create_commit("org/model", [change], commit_message="Add b")
    change = CommitOperationAdd("b.txt", b"b")
    proposed = stranger.create_commit("org/model", [change], commit_message="Add b", create_pr=True)
    assert proposed.pr_num == 2 and repository.files("refs/pr/2") == repository.files() | {"b.txt": b"b"}


def test_deletions_and_the_parent_commit(hub, client, folder):
    api = client()
    repository = hub.create_repository("org/model", {"old/a.safetensors": WEIGHTS, "old/b.txt": b"b", "keep.txt": b""})
    first = repository.branches["main"]
    api.upload_folder(repo_id="org/model", folder_path=folder, delete_patterns="old/*.safetensors")
    assert {"old/b.txt", "keep.txt", "config.json"} < set(repository.files())
    assert "old/a.safetensors" not in repository.files()
    assert len(repository.history()) == 3
    assert hub.requests_for("PUT /lfs/") == []  # the weights were here already, under another name
    api.delete_folder("old", "org/model")
    assert "old/b.txt" not in repository.files()
    with pytest.raises(RemoteEntryNotFoundError, match="doesn't exist"):
        api.delete_file("missing.txt", "org/model")
    with pytest.raises(HfHubHTTPError, match="commit has happened since"):
        api.create_commit("org/model", [CommitOperationAdd("c", b"c")], commit_message="C", parent_commit=first)


def test_download_cache_and_offline(hub, client, tmp_path):
    files = {"config.json": b"{}", "sub/model.safetensors": WEIGHTS, "sub/deeper/notes.txt": b"n"}
    repository = hub.create_repository("org/model", files)
    repository.tag("v1")
    repository.commit({"config.json": b'{"new": 1}', "sub/deeper/notes.txt": None})
    api, cache = client(), tmp_path / "cache"

    def snapshot(**options) -> dict[str, bytes]:
        root = Path(api.snapshot_download("org/model", cache_dir=cache, **options))
        found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert found.pop(".gitattributes")
        return found

    new = {"config.json": b'{"new": 1}', "sub/model.safetensors": WEIGHTS}
    assert snapshot() == new
    assert snapshot(revision="v1") == files
    downloads = len(hub.requests_for("GET .*/resolve/"))
    assert snapshot(revision=repository.branches["main"]) == new
    assert len(hub.requests_for("GET .*/resolve/")) == downloads == 5  # the weights once, as both revisions share them
    assert len(hub.requests_for("GET .*/resolve/.*/sub/model.safetensors")) == 1

    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/model", "missing.json", cache_dir=cache)
    hub.stop()
    assert snapshot() == new and snapshot(revision="v1") == files
    assert Path(api.hf_hub_download("org/model", "config.json", cache_dir=cache)).read_bytes() == b'{"new": 1}'
    with pytest.raises(LocalEntryNotFoundError):
        api.snapshot_download("org/model", revision="refs/pr/1", cache_dir=cache)
    hub.start()  # at the same address
    repository.commit({"config.json": b"{}"})
    assert snapshot() == new | {"config.json": b"{}"}


def test_listings(hub, client):
    files = {"README.md": CARD.encode(), "config.json": b'{"model_type": "t5", "auto_map": {}}', "a/b/c.bin": WEIGHTS}
    repository = hub.create_repository("org/model", files)
    api = client(False)
    info = api.model_info("org/model", files_metadata=True)
    assert info.sha == repository.branches["main"] and not info.private and info.gated is False
    assert info.card_data.license == "apache-2.0" and info.card_data.eval_results[0].metric_value == 3.5
    assert info.library_name == "transformers" and info.pipeline_tag == "automatic-speech-recognition"
    assert {"speech", "en", "license:apache-2.0", "base_model:org/base", "custom_code", "t5"} < set(info.tags)
    sizes = {sibling.rfilename: (sibling.size, sibling.lfs and sibling.lfs.size) for sibling in info.siblings}
    assert sizes["a/b/c.bin"] == (len(WEIGHTS), len(WEIGHTS)) and sizes["config.json"][1] is None
    assert api.model_info("org/model", expand=["private"]).siblings is None

    def paths(*where, **options) -> set[str]:
        return {entry.path for entry in api.list_repo_tree("org/model", *where, **options)}

    assert paths() == {".gitattributes", "README.md", "config.json", "a"}
    assert paths("a") == {"a/b"} and paths("a", recursive=True) == {"a/b", "a/b/c.bin"}
    assert set(api.list_repo_files("org/model")) == {*files, ".gitattributes"}
    blob, entry = repository.resolve().files["a/b/c.bin"], api.get_paths_info("org/model", ["a/b/c.bin", "missing"])[0]
    assert entry.lfs.sha256 == blob.sha256 and entry.blob_id == blob.git_oid
    assert api.get_paths_info("org/model", ["a/b"])[0].path == "a/b"
    with pytest.raises(RemoteEntryNotFoundError, match="does not exist"):
        paths("missing")


def test_git_names_blobs_the_same_way(tmp_path, hub):
    repository = hub.create_repository("org/model", {"config.json": b"{}\n", "model.safetensors": WEIGHTS})
    blobs = repository.resolve().files
    for path, stored in (("config.json", b"{}\n"), ("model.safetensors", blobs["model.safetensors"].pointer)):
        named = subprocess.run(["git", "hash-object", "--stdin"], input=stored, capture_output=True, check=True)
        assert blobs[path].git_oid == named.stdout.decode().strip()


def test_gates_and_private_repositories(hub, client, tmp_path):
    hub.create_repository("org/gated", {"config.json": b"{}"}, gated=True)
    hub.create_repository("org/private", {"config.json": b"{}"}, private=True)

    def download(repo_id: str, token) -> bytes:
        path = client(token).hf_hub_download(repo_id, "config.json", cache_dir=tmp_path / str(token))
        return Path(path).read_bytes()

    for token, status in ((False, 401), (HubStandIn.STRANGER, 403)):
        assert client(token).model_info("org/gated").gated == "auto"  # what it is, everyone may know
        with pytest.raises(GatedRepoError, match="restricted") as error:
            download("org/gated", token)
        assert error.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            client(token).auth_check("org/gated")
    for token, status in ((False, 401), (HubStandIn.STRANGER, 404)):
        with pytest.raises(RepositoryNotFoundError) as error:
            download("org/private", token)
        assert type(error.value) is RepositoryNotFoundError and error.value.response.status_code == status
        assert not client(token).repo_exists("org/private")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        download("org/gated", "hf_unknown")

    hub.grant("hf_friend", "org/gated")
    hub.grant("hf_friend", "org/private")
    for token in (HubStandIn.OWNER, "hf_friend"):
        assert download("org/gated", token) == download("org/private", token) == b"{}"


def test_what_is_missing_has_its_own_error(hub, client, tmp_path):
    hub.create_repository("org/model", {"config.json": b"{}"})
    api = client()
    with pytest.raises(RepositoryNotFoundError) as error:
        api.model_info("org/missing")
    assert error.value.response.status_code == 404
    with pytest.raises(RepositoryNotFoundError):
        client(False).hf_hub_download("org/missing", "config.json", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="org/missing")
    for call in (api.model_info, api.snapshot_download):
        with pytest.raises(RevisionNotFoundError, match="Invalid rev id: nowhere"):
            call("org/model", revision="nowhere")
    with pytest.raises(RemoteEntryNotFoundError, match="Entry not found|Entry Not Found"):
        api.hf_hub_download("org/model", "missing.json", cache_dir=tmp_path)
    assert api.file_exists("org/model", "config.json") and not api.file_exists("org/model", "missing.json")
    assert not api.revision_exists("org/model", "nowhere") and not api.repo_exists("org/missing")


@pytest.mark.parametrize("failing", ["second upload", "commit", "commit, cut"])
def test_an_interrupted_upload_resumes(hub, client, folder, failing):
    api, repository = client(), hub.create_repository("org/model")
    (folder / "more.safetensors").write_bytes(WEIGHTS[::-1])
    if failing == "second upload":
        hub.fail_next("PUT /lfs/", skip=1, status=507)
    elif failing == "commit":
        hub.fail_next(lambda request: request.method == "POST" and "/commit/" in request.path)
    else:
        hub.cut_next("POST .*/commit/")

    with pytest.raises((HfHubHTTPError, httpx.RemoteProtocolError, RuntimeError)):
        api.upload_folder(repo_id="org/model", folder_path=folder)
    assert len(repository.commits) == 1  # nothing halfway
    api.upload_folder(repo_id="org/model", folder_path=folder)
    assert repository.files()["more.safetensors"] == WEIGHTS[::-1] and len(repository.commits) == 2
    uploads = [request.path for request in hub.requests_for("PUT /lfs/") if request.status == 200]
    assert len(uploads) == len(set(uploads)) == 2  # neither was sent again


def test_what_the_client_repeats_by_itself(hub, client, folder, tmp_path):
    api, repository = client(), hub.create_repository("org/model")
    hub.cut_next("PUT /lfs/")
    api.upload_folder(repo_id="org/model", folder_path=folder)
    assert [request.status for request in hub.requests_for("PUT /lfs/")] == [None, 200]
    hub.cut_next("GET .*/resolve/.*safetensors")
    path = api.hf_hub_download("org/model", "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == WEIGHTS == repository.files()["model.safetensors"]
    assert [request.status for request in hub.requests_for("GET .*/resolve/")][0] is None


def test_ranges(hub):
    hub.create_repository("org/model", {"model.safetensors": WEIGHTS})

    def get(wanted: str | None, method: str = "GET"):
        headers = {"Range": wanted} if wanted else {}
        url = f"{hub.url}/org/model/resolve/main/model.safetensors"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method)) as response:
            return response.status, response.read(), response.headers

    status, body, headers = get("bytes=10-19")
    assert (status, body, headers["Content-Range"]) == (206, WEIGHTS[10:20], f"bytes 10-19/{len(WEIGHTS)}")
    assert get("bytes=100-")[:2] == (206, WEIGHTS[100:]) and get("bytes=-7")[:2] == (206, WEIGHTS[-7:])
    assert get(None)[:2] == (200, WEIGHTS)
    status, body, headers = get(None, "HEAD")
    blob = hub.repositories["org/model"].resolve().files["model.safetensors"]
    assert (status, body, headers["Content-Length"], headers["X-Linked-Size"]) == (200, b"", *[str(len(WEIGHTS))] * 2)
    assert headers["X-Linked-ETag"] == headers["ETag"] == f'"{blob.sha256}"'
    assert headers["X-Repo-Commit"] == hub.repositories["org/model"].branches["main"]
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(f"bytes={len(WEIGHTS)}-")


def test_a_valid_card(hub, client, recwarn):
    ModelCard(CARD).validate()
    ModelCard("---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n").validate()
    client()._validate_yaml(CARD)
    ModelCard(
        f"---\n{result(metrics=[{'type': 'wer', 'value': '3.5 ± 1', 'args': {'a': [1]}, 'more': 1}])}\n---\n"
    ).validate()
    assert not recwarn.list
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        client()._validate_yaml("# No metadata\n")
    with pytest.warns(UserWarning, match="not in the official list"):
        client()._validate_yaml("---\npipeline_tag: speech-magic\n---\n")


def result(**changes) -> str:
    """A model index of one result, a part of which is changed; JSON is YAML."""
    parts = {
        "task": {"type": "automatic-speech-recognition"},
        "dataset": {"type": "org/corpus", "name": "Corpus"},
        "metrics": [{"type": "wer", "value": 3.5}],
    }
    return "model-index: " + json.dumps([{"name": "model", "results": [parts | changes]}])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: apache-3", '"license" must be one of'),
        ("license: [mit, made-up]", r'"license\[1\]" must be one of'),
        ("language: no", '"language" must be a string'),
        ("language: English", "ISO 639"),
        ("tags: speech", '"tags" must be an array'),
        ("base_model: /models/base", "Use a model id"),
        ("datasets: [./corpus]", "Use a dataset id"),
        ("pipeline_tag: [a]", '"pipeline_tag" must be a string'),
        ("model-index: [{name: m, results: [{task: {}, dataset: {}, metrics: []}]}]", "task.type\" is required"),
        ("model-index: [{results: []}]", r'"model-index\[0\].name" is required'),
        ("model-index: [{name: m}]", r'"model-index\[0\].results" is required'),
        ("model-index: {name: m, results: []}", '"model-index" must be an array'),
        (result(task={"name": "ASR"}), r'results\[0\].task.type" is required'),
        (result(dataset={"name": "Corpus"}), 'dataset.type" is required'),
        (result(dataset={"type": "corpus"}), 'dataset.name" is required'),
        (result(dataset={"type": "my corpus", "name": "Corpus"}), 'dataset.type" with value "my corpus" fails to match'),
        (result(dataset={"type": "a/b/c", "name": "Corpus"}), 'dataset.type" with value "a/b/c" fails to match'),
        (result(dataset={"type": "korpüs", "name": "Corpus"}), "fails to match the required pattern"),
        (result(dataset={"type": "corpus", "name": ""}), 'dataset.name" is not allowed to be empty'),
        (result(dataset={"type": "corpus", "name": "Corpus", "config": 1}), 'dataset.config" must be a string'),
        (result(metrics={"type": "wer", "value": 1}), 'metrics" must be an array'),
        (result(metrics=[{"value": 1}]), r'metrics\[0\].type" is required'),
        (result(metrics=[{"type": "wer"}]), r'metrics\[0\].value" is required'),
        (result(metrics=[{"type": "wer", "value": None}]), r'metrics\[0\].value" is required'),
        (result(metrics=[{"type": "wer", "value": 1, "config": {"a": 1}}]), r'metrics\[0\].config" must be a string'),
        (result(metrics=[{"type": "wer", "value": 1, "verified": "yes"}]), r'verified" must be a boolean'),
        ("- a", "must be a mapping"),
        ("tags: [", "Invalid YAML"),
    ],
)  # fmt: skip
def test_an_invalid_card(hub, client, metadata, message):
    content = f"---\n{metadata}\n---\n# Model\n"
    hub.create_repository("org/model")
    with pytest.raises(ValueError, match=message):
        client().upload_file(path_or_fileobj=content.encode(), path_in_repo="README.md", repo_id="org/model")
    assert hub.requests_for("POST .*/commit/") == []


def test_model_card_validate_refuses(hub, client):
    with pytest.raises(ValueError, match='"license" must be one of'):
        ModelCard("---\nlicense: apache-3\n---\n").validate()


SCRIPT = """
import sys, warnings
from huggingface_hub import HfApi, ModelCard, get_token, snapshot_download
from pathlib import Path

api = HfApi()
print(get_token())
api.create_repo("org/new", exist_ok=True)
api.upload_folder(repo_id="org/new", folder_path=sys.argv[1])
root = Path(snapshot_download("org/new"))
ModelCard.load("org/new").validate()
print(root.is_relative_to(sys.argv[2]), (root / "model.safetensors").stat().st_size)
"""


def test_a_subprocess_takes_it_for_the_hub(hub, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "of the user"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    home = tmp_path / "home"

    def run(**options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", SCRIPT, str(folder), str(home)]
        return subprocess.run(command, env=hub.environment(home, **options), capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hf_owner", "True", str(len(WEIGHTS))]
    assert len(hub.repositories["org/new"].history()) == 2
    anonymous = run(token=None)
    assert anonymous.returncode != 0 and "401" in anonymous.stderr


def test_what_it_does_not_know_is_kept():
    with HubStandIn() as hub:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{hub.url}/api/unknown")
        assert hub.unhandled == ["GET /api/unknown"]
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(f"{hub.url}/api/validate-yaml", data=b"not JSON")
        assert "JSONDecodeError" in hub.unhandled[1]

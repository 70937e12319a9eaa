"""The endpoints: what is answered to each method and path."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .cards import check_card
from .messages import Answer, HubError, Request
from .store import LARGEST_REGULAR_FILE, Blob, Commit, PullRequest, Repository, matches, now


# A route's pattern sees the path with its escapes, as a revision ("refs/pr/1") may hold a slash; its
# function gets the parts without them.

ROUTES: list[tuple[str, re.Pattern, Callable[..., Answer]]] = []
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+(?:/[^/]+)?)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION = r"/(?P<revision>[^/]+)"


def route(method: str, pattern: str):
    """Register the function that answers `method` on the paths that match."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


@route("GET", "/api/whoami-v2")
def whoami(hub, request: Request) -> Answer:
    account = hub.account(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    organizations = [{"type": "org", "name": name, "fullname": name} for name in account.organizations]
    access = {"accessToken": {"displayName": "stand-in", "role": "write"}}
    return Answer.json(
        {"type": "user", "name": account.name, "fullname": account.name, "orgs": organizations, "auth": access}
    )


@route("GET", "/api/agent-harnesses")
def agent_harnesses(hub, request: Request) -> Answer:
    """The client asks this once a day, to name coding agents in its user agent."""
    return Answer.json({"standardEnvVars": [], "harnesses": {}})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub, request: Request) -> Answer:
    errors, warnings = check_card(request.json()["content"])
    status = 400 if errors else 200
    if request.headers.get("accept") == "text/plain":  # so asks `RepoCard.validate`, which shows the text as it is
        return Answer(status, "\n".join(errors + warnings).encode(), content_type="text/plain; charset=utf-8")
    payload = {
        kind: [{"message": text} for text in texts] for kind, texts in (("errors", errors), ("warnings", warnings))
    }
    return Answer.json(payload, status)


@route("POST", "/api/repos/create")
def create_repo(hub, request: Request) -> Answer:
    account, wanted = hub.account(request), request.json()
    if account is None:
        raise HubError(401, "Invalid username or password.")
    namespace, kind = wanted.get("organization") or account.name, wanted.get("type", "model")
    if not account.owns(namespace):
        raise HubError(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    repository = Repository(f"{namespace}/{wanted['name']}", kind)
    named = {"url": f"{hub.url}/{repository.url_path}", "name": repository.repo_id}
    if repository.url_path in hub.repositories:
        return Answer.json({"error": f"You already created this {kind} repo", **named}, 409)
    hub.create_repository(repository.repo_id, kind=kind, private=private)
    return Answer.json(named)


@route("GET", API + "/auth-check(?P<write>/write)?")
def auth_check(hub, request: Request, kind: str, repo: str, write: str | None) -> Answer:
    hub.repository(request, kind, repo, "write" if write else "files")
    return Answer.json({})


@route("GET", API + "/refs")
def list_refs(hub, request: Request, kind: str, repo: str) -> Answer:
    repository = hub.repository(request, kind, repo)

    def below(prefix: str) -> list[dict]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha}
            for ref, sha in repository.refs.items()
            if ref.startswith(prefix)
        ]

    refs = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    if request.flag("include_prs"):
        refs["pullRequests"] = below("refs/pr/")
    return Answer.json(refs)


@route("POST", API + "/branch/(?P<branch>[^/]+)")
def create_branch(hub, request: Request, kind: str, repo: str, branch: str) -> Answer:
    repository = hub.repository(request, kind, repo, "write")
    if branch.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {branch}")
    if branch in repository.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repository.refs[f"refs/heads/{branch}"] = repository.resolve(request.json().get("startingPoint", "main")).sha
    return Answer.json({})


@route("POST", API + "/tag" + REVISION)
def create_tag(hub, request: Request, kind: str, repo: str, revision: str) -> Answer:
    repository, tag = hub.repository(request, kind, repo, "write"), request.json()["tag"]
    if tag in repository.tags:
        raise HubError(409, f"Tag already exists: {tag}")
    repository.tag(tag, revision)
    return Answer.json({})


@route("GET", API + "/commits" + REVISION)
def list_commits(hub, request: Request, kind: str, repo: str, revision: str) -> Answer:
    repository = hub.repository(request, kind, repo)
    return Answer.json(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in repository.history(revision)
        ]
    )


@route("GET", API + "/tree" + REVISION + "(?:/(?P<folder>.+))?")
def list_tree(hub, request: Request, kind: str, repo: str, revision: str, folder: str | None) -> Answer:
    files = hub.repository(request, kind, repo).resolve(revision).files
    folder = folder.strip("/") + "/" if folder else ""
    inside = [path for path in sorted(files) if path.startswith(folder)]
    if folder and not inside:
        raise HubError(404, f'{folder.strip("/")} does not exist on "{revision}"', "EntryNotFound")
    entries = []
    for subfolder in _folders(inside):
        if subfolder.startswith(folder) and (request.flag("recursive") or "/" not in subfolder.removeprefix(folder)):
            entries.append(_tree_folder(subfolder))
    for path in inside:
        if request.flag("recursive") or "/" not in path.removeprefix(folder):
            entries.append(_tree_file(path, files[path]))
    return Answer.json(entries)


@route("POST", API + "/paths-info" + REVISION)
def paths_info(hub, request: Request, kind: str, repo: str, revision: str) -> Answer:
    """Describe those of the paths that exist; the client sends a form, other clients send JSON."""
    files = hub.repository(request, kind, repo).resolve(revision).files
    if request.headers.get("content-type", "").startswith("application/json"):
        paths = request.json()["paths"]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    folders = _folders(files)
    entries = [_tree_file(path, files[path]) for path in paths if path in files]
    entries += [_tree_folder(path) for path in paths if path in folders]
    return Answer.json(entries)


def _folders(paths) -> list[str]:
    """Every folder above a file."""
    return sorted({path[:index] for path in paths for index, letter in enumerate(path) if letter == "/"})


def _tree_folder(path: str) -> dict:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _tree_file(path: str, blob: Blob) -> dict:
    entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.git_oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return entry


@route("POST", API + "/preupload" + REVISION)
def preupload(hub, request: Request, kind: str, repo: str, revision: str) -> Answer:
    """Say how each file is to be uploaded, and what is there now, so that unchanged files are not sent."""
    repository = hub.repository(request, kind, repo, "files" if request.flag("create_pr") else "write")
    files, asked = repository.resolve(revision).files, request.json()
    ignore = asked.get("gitIgnore")
    if ignore is None:
        ignore = files[".gitignore"].content.decode() if ".gitignore" in files else ""
    ignored = [line.strip() for line in ignore.splitlines() if line.strip() and not line.startswith("#")]
    answers = []
    for file in asked["files"]:
        path = file["path"]
        mode = "lfs" if repository.is_lfs(path, file["size"]) else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": matches(path, ignored)}
        if path in files:
            answer["oid"] = files[path].etag
        answers.append(answer)
    return Answer.json({"files": answers})


@route("POST", PAGE + r"\.git/info/lfs/objects/batch")
def lfs_batch(hub, request: Request, kind: str | None, repo: str) -> Answer:
    """Say where to put each LFS object; one that is here already needs no action, so that it is not sent twice."""
    # A pull request needs no right to write, and the client does not say here that it is to be one.
    repository = hub.repository(request, kind, repo, "files")
    if hub.account(request) is None:
        raise HubError(401, "Invalid username or password.")
    objects = []
    for wanted in request.json()["objects"]:
        oid = wanted["oid"]
        answer = {"oid": oid, "size": wanted["size"]}
        if oid not in repository.lfs_objects:
            place = f"{hub.url}/lfs/{repository.kind}s/{repository.repo_id}"
            answer["actions"] = {"upload": {"href": f"{place}/{oid}"}, "verify": {"href": f"{place}/verify"}}
        objects.append(answer)
    answer = Answer.json({"transfer": "basic", "objects": objects})
    answer.content_type = "application/vnd.git-lfs+json"
    return answer


LFS_STORE = r"/lfs/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"


@route("PUT", LFS_STORE + "/(?P<oid>[0-9a-f]{64})")
def put_lfs_object(hub, request: Request, kind: str, repo: str, oid: str) -> Answer:
    """Store an LFS object; the link, which the Hub signs, needs no token."""
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "The content does not have the SHA-256 that its address names")
    repository = hub.repositories[repo if kind == "models" else f"{kind}/{repo}"]
    repository.lfs_objects[oid] = request.body
    return Answer(headers={"ETag": f'"{oid}"'})


@route("POST", LFS_STORE + "/verify")
def verify_lfs_object(hub, request: Request, kind: str, repo: str) -> Answer:
    wanted = request.json()
    stored = hub.repository(request, kind, repo, "files").lfs_objects.get(wanted["oid"])
    if stored is None or len(stored) != wanted["size"]:
        raise HubError(404, f"LFS object {wanted['oid']} of {wanted['size']} bytes not found", "EntryNotFound")
    return Answer.json({})


@route("POST", API + "/commit" + REVISION)
def create_commit(hub, request: Request, kind: str, repo: str, revision: str) -> Answer:
    """Apply all operations in one commit, to a branch or, with `create_pr`, to a new pull request."""
    create_pr = request.flag("create_pr")
    repository = hub.repository(request, kind, repo, "files" if create_pr else "write")
    account = hub.account(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next((line["value"] for line in lines if line["key"] == "header"), {})
    if not header.get("summary"):
        raise HubError(400, '"summary" is required')
    base = repository.resolve(revision)
    if not create_pr and not base.sha.startswith(header.get("parentCommit", "")):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    changes = _changes(repository, base, [line for line in lines if line["key"] != "header"])

    if create_pr:
        number = len(repository.pull_requests) + 1
        ref = f"refs/pr/{number}"
        repository.pull_requests[number] = PullRequest(number, header["summary"], account.name, now())
        repository.refs[ref] = base.sha
    else:
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if ref not in repository.refs:
            raise HubError(400, f"{revision} is not a branch: nothing can be committed to it")
    commit = repository.record(changes, ref, header["summary"], header.get("description", ""), account.name)

    page = f"{hub.url}/{repository.url_path}"
    answer = {"success": True, "commitOid": commit.sha, "commitUrl": f"{page}/commit/{commit.sha}", "hookOutput": ""}
    if create_pr:
        answer["pullRequestUrl"] = f"{page}/discussions/{number}"
    return Answer.json(answer)


def _changes(repository: Repository, base: Commit, operations: list[dict]) -> dict[str, Blob | None]:
    """What the operations of a commit do to each file."""
    changes: dict[str, Blob | None] = {}
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if key == "file":
            content = base64.b64decode(value["content"], validate=True)
            if len(content) > LARGEST_REGULAR_FILE:
                raise HubError(400, f"{path} is too large for a regular file: use LFS")
            changes[path] = Blob(content)
        elif key == "lfsFile":
            if value["oid"] not in repository.lfs_objects:
                raise HubError(400, f"{path} points to the LFS object {value['oid']}, which was not uploaded")
            changes[path] = Blob(repository.lfs_objects[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if path not in base.files:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            changes[path] = None
        elif key == "deletedFolder":
            inside = [name for name in base.files if name.startswith(path.rstrip("/") + "/")]
            if not inside:
                raise HubError(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
            changes.update(dict.fromkeys(inside))
        else:
            raise HubError(400, f"Unknown operation: {key}")
    return changes


@route("GET", API + "/discussions")
def list_discussions(hub, request: Request, kind: str, repo: str) -> Answer:
    repository = hub.repository(request, kind, repo)
    found = [_discussion(repository, pull_request) for pull_request in repository.pull_requests.values()]
    return Answer.json({"discussions": found, "count": len(found), "start": 0, "numClosedDiscussions": 0})


def _discussion(repository: Repository, pull_request: PullRequest) -> dict:
    return {
        "num": pull_request.number,
        "title": pull_request.title,
        "author": {"name": pull_request.author},
        "createdAt": pull_request.date,
        "status": pull_request.status,
        "isPullRequest": True,
        "repo": {"name": repository.repo_id, "type": repository.kind},
    }


@route("GET", PAGE + "/resolve" + REVISION + "/(?P<path>.+)")
def resolve_file(hub, request: Request, kind: str | None, repo: str, revision: str, path: str) -> Answer:
    """A file, or what its HEAD tells. The headers are what the client keys its cache with."""
    commit = hub.repository(request, kind, repo, "files").resolve(revision)
    if path not in commit.files:
        # With the commit's sha the client remembers that the file is missing there.
        raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.sha})
    blob = commit.files[path]
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.sha256}"'}
    answer = Answer(200, blob.content, headers, "application/octet-stream")
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if wanted and request.method == "GET" and any(wanted.groups()):
        _narrow(answer, *wanted.groups())
    return answer


def _narrow(answer: Answer, first: str, last: str) -> None:
    """Cut an answer to the range of bytes asked for; without `first`, `last` counts from the end."""
    size = len(answer.body)
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        answer.status, answer.body = 416, b""
        answer.headers["Content-Range"] = f"bytes */{size}"
    else:
        answer.status, answer.body = 206, answer.body[start:stop]
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"


# Last of all: without a namespace, a repository's name and what follows it look like an id.
@route("GET", API + "(?:/revision" + REVISION + ")?")
def repo_info(hub, request: Request, kind: str, repo: str, revision: str | None) -> Answer:
    repository = hub.repository(request, kind, repo)
    commit = repository.resolve(revision or "main")
    history = repository.history(commit.sha)
    card, config = _card_of(commit), _config_of(commit)
    library = card.get("library_name") or ("transformers" if "model_type" in config else None)
    info = {
        "_id": hashlib.sha1(repository.url_path.encode()).hexdigest()[:24],
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": repository.repo_id.split("/")[0],
        "sha": commit.sha,
        "createdAt": history[-1].date,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(commit, card, config, library),
        "siblings": [_sibling(path, blob, request.flag("blobs")) for path, blob in sorted(commit.files.items())],
        "usedStorage": sum(map(len, repository.lfs_objects.values())),
        "cardData": card,
    }
    if repository.kind == "model":
        info |= {"library_name": library, "pipeline_tag": card.get("pipeline_tag"), "config": config}
        info["model-index"] = card.get("model-index")
    expand = request.query.get("expand", []) + request.query.get("expand[]", [])
    if expand:
        info = {name: value for name, value in info.items() if name in ("_id", "id", "modelId", *expand)}
    return Answer.json(info)


def _sibling(path: str, blob: Blob, detailed: bool) -> dict:
    sibling = {"rfilename": path}
    if detailed:
        sibling |= {"size": len(blob.content), "blobId": blob.git_oid}
        if blob.lfs:
            size = len(blob.content)
            sibling["lfs"] = {"sha256": blob.sha256, "size": size, "pointerSize": len(blob.pointer)}
    return sibling


def _card_of(commit: Commit) -> dict:
    """The metadata of a commit's card; none where they cannot be read."""
    readme = commit.files.get("README.md")
    block = REGEX_YAML_BLOCK.search(readme.content.decode("utf-8-sig")) if readme else None
    try:
        card = yaml.safe_load(block[2]) if block else None
    except yaml.YAMLError:
        card = None
    # As the Hub does, through JSON: a date becomes its text.
    return json.loads(json.dumps(card, default=str)) if isinstance(card, dict) else {}


def _config_of(commit: Commit) -> dict:
    """What the Hub keeps of a model's configuration."""
    file = commit.files.get("config.json")
    config = json.loads(file.content) if file else {}
    return {name: config[name] for name in ("architectures", "model_type", "auto_map") if name in config}


def _tags(commit: Commit, card: dict, config: dict, library: str | None) -> list[str]:
    """The tags of a repository: those of its card, and those that the Hub derives."""

    def values(name: str) -> list[str]:
        value = card.get(name) or []
        return value if isinstance(value, list) else [value]

    tags = [library, *values("tags"), *values("language"), card.get("pipeline_tag"), config.get("model_type")]
    tags += ["safetensors"] if any(path.endswith(".safetensors") for path in commit.files) else []
    tags += ["custom_code"] if "auto_map" in config else []
    tags += [f"license:{name}" for name in values("license")]
    tags += [f"dataset:{name}" for name in values("datasets")]
    tags += [f"base_model:{name}" for name in values("base_model")]
    return list(dict.fromkeys(str(tag) for tag in tags if tag)) + ["region:us"]

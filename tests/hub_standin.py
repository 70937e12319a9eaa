"""A stand-in for the Hugging Face Hub, on the loop-back interface.

`HubStandIn` keeps repositories in memory and serves the part of the Hub's HTTP interface that `huggingface_hub` and
`transformers` use to push a model, to load it back and to check its card. Clients speak to it over real HTTP, so that
a test meets the same requests, headers and error codes as a user does:

```python
with HubStandIn() as hub:
    hub.create_repository("org/model", files={"config.json": b"{}"})
    subprocess.run([sys.executable, "-c", script], env=hub.environment(tmp_path), check=True)
    assert hub.repositories["org/model"].files()["model.safetensors"]
    assert hub.unhandled == []
```

What it leaves out: Xet storage (so `HF_HUB_DISABLE_XET=1` is set), listings of more than one page, redirects of large
files to another host, and multipart uploads. Whatever it does not know is answered with 404 and kept in `unhandled`.
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK


LARGEST_REGULAR_FILE = 10 * 1024 * 1024  # the Hub stores what is larger as LFS, whatever .gitattributes says
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.xz *.zip "
    "*.zst *tfevents*"
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())

# The identifiers that the Hub accepts, as its own error message lists them.
LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl "
    "apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib "
    "pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 "
    "llama4 grok2-community gemma unknown other"
).split()
PIPELINE_TAGS = (
    "any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation "
    "document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction "
    "image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image "
    "image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection other "
    "question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering "
    "table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation "
    "text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video "
    "time-series-forecasting token-classification translation unconditional-image-generation video-classification "
    "video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection"
).split()
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")


# What a repository holds


@dataclass(frozen=True)
class Blob:
    """The content of one file, stored in git itself or, if `lfs`, next to it."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds in place of an LFS file."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        ).encode()

    @property
    def git_oid(self) -> str:
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        """What names the content: in the client's cache, and when it asks whether a file has changed."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """One state of all files of a repository."""

    sha: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, Blob]


@dataclass
class PullRequest:
    """A pull request; its commits are those of the ref `refs/pr/{number}`."""

    number: int
    title: str
    author: str
    date: str
    status: str = "open"


@dataclass
class Repository:
    """A repository of the stand-in: commits, the refs that name them, and the uploaded LFS objects.

    Args:
        repo_id (`str`): `"namespace/name"`.
        kind (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*, defaults to `False`): Hidden from those without access.
        gated (`str` or `bool`, *optional*, defaults to `False`): `"auto"` or `"manual"` to gate the files.
    """

    repo_id: str
    kind: str = "model"
    private: bool = False
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # "refs/heads/main" -> sha of a commit
    pull_requests: dict[int, PullRequest] = field(default_factory=dict)
    lfs_objects: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> content, committed or not

    @property
    def url_path(self) -> str:
        return self.repo_id if self.kind == "model" else f"{self.kind}s/{self.repo_id}"

    @property
    def branches(self) -> dict[str, str]:
        """The sha of each branch's last commit."""
        return self._refs_below("refs/heads/")

    @property
    def tags(self) -> dict[str, str]:
        """The sha of each tag's commit."""
        return self._refs_below("refs/tags/")

    def _refs_below(self, prefix: str) -> dict[str, str]:
        return {ref.removeprefix(prefix): sha for ref, sha in self.refs.items() if ref.startswith(prefix)}

    def resolve(self, revision: str = "main") -> Commit:
        """The commit that a branch, a tag, a ref such as `refs/pr/1`, or a sha names."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        if revision in self.commits:
            return self.commits[revision]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The content of every file of a revision, by its path."""
        return {path: blob.content for path, blob in self.resolve(revision).files.items()}

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that led to a revision, the newest first."""
        commits = [self.resolve(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def tag(self, name: str, revision: str = "main") -> None:
        """Give a revision a name that stays with it."""
        self.refs[f"refs/tags/{name}"] = self.resolve(revision).sha

    def commit(
        self, changes: Mapping[str, bytes | None], title: str = "Change files", branch: str = "main", author: str = ""
    ) -> Commit:
        """Add, replace or (with `None`) delete files of a branch, as if another user had pushed them."""
        blobs = {path: None if content is None else self.blob(path, content) for path, content in changes.items()}
        return self.record(blobs, f"refs/heads/{branch}", title, author=author or self.repo_id.split("/")[0])

    def record(
        self, changes: Mapping[str, Blob | None], ref: str, title: str, message: str = "", author: str = ""
    ) -> Commit:
        """Commit `changes` on top of what `ref` names now, and move `ref` there."""
        parent = self.refs.get(ref)
        files = dict(self.commits[parent].files) if parent else {}
        for path, blob in changes.items():
            if blob is None:
                del files[path]
            else:
                files[path] = blob
        described = [
            self.url_path,
            len(self.commits),
            parent,
            title,
            {path: blob.etag for path, blob in files.items()},
        ]
        sha = hashlib.sha1(json.dumps(described, sort_keys=True).encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, message, author, _now(), files)
        self.refs[ref] = sha
        return self.commits[sha]

    def blob(self, path: str, content: bytes) -> Blob:
        """The blob of a file, in LFS where an upload of that file would have put it."""
        if not self.is_lfs(path, len(content)):
            return Blob(content)
        blob = Blob(content, lfs=True)
        self.lfs_objects[blob.sha256] = content
        return blob

    def is_lfs(self, path: str, size: int) -> bool:
        """Whether the Hub asks for a file of this path and size as LFS. (It also looks at its first bytes.)"""
        if size == 0:
            return False
        files = self.resolve().files if "refs/heads/main" in self.refs else {}
        attributes = files[".gitattributes"].content.decode() if ".gitattributes" in files else ""
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line.split()]
        return size > LARGEST_REGULAR_FILE or _matches(path, patterns)


@dataclass
class Account:
    """Whom a token belongs to, and which repositories beside its own it was granted."""

    name: str
    organizations: tuple[str, ...] = ()
    granted: set[str] = field(default_factory=set)

    def owns(self, namespace: str) -> bool:
        return namespace in (self.name, *self.organizations)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def _matches(path: str, patterns: list[str]) -> bool:
    """Whether git would apply one of the patterns: to the file's name, or to its path if the pattern has a slash."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch(path if "/" in pattern else name, pattern.lstrip("/")) for pattern in patterns)


# Requests and answers


@dataclass
class Request:
    """A request that the stand-in received."""

    method: str
    path: str  # without its query, with its escapes: a revision may hold a slash
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes = field(default=b"", repr=False)
    status: int | None = None  # of the answer; None where the connection was cut

    def __str__(self) -> str:
        return f"{self.method} {unquote(self.path)}"

    @property
    def token(self) -> str | None:
        """The token sent, if any."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"

    @classmethod
    def json(cls, payload, status: int = 200, headers: Mapping[str, str] | None = None) -> "Answer":
        return cls(status, json.dumps(payload).encode(), dict(headers or {}))


class HubError(Exception):
    """An error in the form in which the Hub answers it; `huggingface_hub` picks its exception by `code`."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})

    def answer(self) -> Answer:
        headers = self.headers | {"X-Error-Message": self.message.encode("ascii", "replace").decode()}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Answer.json({"error": self.message}, self.status, headers)


@dataclass
class _Failure:
    matching: Callable[[Request], bool]
    skip: int
    times: int
    status: int | None


# The stand-in


class HubStandIn:
    """A Hub with repositories in memory, which answers on `url` between `start()` and `stop()`, or inside `with`.

    The token `OWNER` may do everything in the namespaces `"tester"` and `"org"`. The token `STRANGER` is valid, but owns
    no more than `"stranger"`: it meets the gates, and 404 in place of private repositories. Any other token is refused
    as invalid, until `grant` makes it known.

    Attributes:
        repositories (`dict[str, Repository]`):
            By their path: `"org/name"` for models, `"datasets/org/name"` for data sets.
        requests (`list[Request]`):
            Everything that was asked, in order.
        unhandled (`list[str]`):
            Requests that nothing here answers: a test should find it empty.
        accounts (`dict[str, Account]`):
            Who is behind each token.
    """

    OWNER = "hf_owner"
    STRANGER = "hf_stranger"

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.unhandled: list[str] = []
        self.accounts = {self.OWNER: Account("tester", ("org",)), self.STRANGER: Account("stranger")}
        self._failures: list[_Failure] = []
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._port = 0  # any free one; kept by stop(), so that a Hub which comes back has its old address

    def __enter__(self) -> "HubStandIn":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> "HubStandIn":
        """Answer requests, from a thread."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections, as if the network were gone; the repositories stay, for another `start()`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def create_repository(
        self,
        repo_id: str,
        files: Mapping[str, bytes] | None = None,
        *,
        kind: str = "model",
        private: bool = False,
        gated: str | bool = False,
    ) -> Repository:
        """Create a repository with its `.gitattributes`, and commit `files` to its branch `main`."""
        repository = Repository(repo_id, kind, private, "auto" if gated is True else gated)
        repository.commit({".gitattributes": GITATTRIBUTES.encode()}, "initial commit")
        if files:
            repository.commit(files, "Upload files")
        self.repositories[repository.url_path] = repository
        return repository

    def grant(self, token: str, repo_id: str) -> None:
        """Let a token (a new account's, if unknown) read a private or gated repository, named as in `repositories`."""
        account = self.accounts.setdefault(token, Account(f"user-of-{token}"))
        account.granted.add(repo_id)

    def fail_next(
        self, matching: str | Callable[[Request], bool], *, skip: int = 0, times: int = 1, status: int | None = 500
    ) -> None:
        """Fail the next `times` matching requests after `skip` of them, without any other effect.

        `huggingface_hub` repeats a failed upload of an LFS file up to five times when the status is 408, 429, 500,
        502, 503 or 504, or when the connection breaks, and waits 1, 2, 4, 8 and 8 seconds before it does. A status
        such as 507 ends the upload at once. It never repeats a commit of `create_commit`.

        Args:
            matching (`str` or `Callable`):
                A predicate on a `Request`, or a regular expression to find in `"METHOD /path"`, such as `"PUT /lfs/"`.
            skip (`int`, *optional*, defaults to 0):
                How many matching requests to let pass first.
            times (`int`, *optional*, defaults to 1):
                How many matching requests to fail.
            status (`int` or `None`, *optional*, defaults to 500):
                The status of the answer. `None` cuts the connection: in the middle of a download, else unanswered.
        """
        if isinstance(matching, str):
            pattern = re.compile(matching)
            self._failures.append(_Failure(lambda request: bool(pattern.search(str(request))), skip, times, status))
        else:
            self._failures.append(_Failure(matching, skip, times, status))

    def cut_next(self, matching: str | Callable[[Request], bool], *, skip: int = 0, times: int = 1) -> None:
        """Cut the connection of the next matching requests; see `fail_next`."""
        self.fail_next(matching, skip=skip, times=times, status=None)

    def requests_for(self, pattern: str) -> list[Request]:
        """The requests so far in whose `"METHOD /path"` the regular expression is found."""
        return [request for request in self.requests if re.search(pattern, str(request))]

    def environment(self, home: str | os.PathLike, *, token: str | None = OWNER) -> dict[str, str]:
        """The environment of a process that is to take the stand-in for the Hub.

        It is that of this process without its settings of the Hub and its proxies: the offline mode of the tests and
        the cache of the user must not leak into the subprocess.

        Args:
            home (`str` or `os.PathLike`): Becomes `HF_HOME`: the cache, the stored token, the code of the Hub.
            token (`str` or `None`, *optional*, defaults to `HubStandIn.OWNER`): `None` for a user who has not logged in.
        """
        foreign = re.compile(
            r"HF_.*|HUGGING_?FACE_.*|TRANSFORMERS_(CACHE|OFFLINE)|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE
        )
        kept = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(Path(home)),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return kept | settings | ({"HF_TOKEN": token} if token is not None else {})

    # What the endpoints ask

    def repository(self, request: Request, kind: str | None, repo: str, need: str = "read") -> Repository:
        """The repository that a request names, if its token suffices.

        Args:
            need (`str`, *optional*, defaults to `"read"`):
                `"read"` for what everyone sees of a gated repository, `"files"` for what its gate protects, or
                `"write"`.
        """
        kind = (kind or "models").removesuffix("s")
        path = repo if kind == "model" else f"{kind}s/{repo}"
        account = self.account(request)
        repository = self.repositories.get(path)
        owner = account is not None and account.owns(repo.split("/")[0])
        granted = account is not None and path in account.granted
        if repository is None or (repository.private and not owner and not granted):
            # The Hub does not tell whether a private repository exists. The client takes this 401 for a missing
            # repository by its URL only if that is https, so the code must say it.
            if account is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if need == "files" and repository.gated and not owner and not granted:
            if account is None:
                tail = "You must have access to it and be authenticated to access it. Please log in."
                raise HubError(401, f"Access to {kind} {repo} is restricted. {tail}", "GatedRepo")
            tail = f"you are not in the authorized list. Visit {self.url}/{path} to ask for access."
            raise HubError(403, f"Access to {kind} {repo} is restricted and {tail}", "GatedRepo")
        if need == "write" and not owner:
            if account is None:
                raise HubError(401, "Invalid username or password.")
            raise HubError(403, f"You do not have write access to {kind} {repo}")
        return repository

    def account(self, request: Request) -> Account | None:
        """Who sent a request; `None` without a token."""
        if request.token is None:
            return None
        if request.token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts[request.token]

    # What the server asks

    def failure_of(self, request: Request) -> _Failure | None:
        """The failure that a test wants for a request, which this uses up."""
        with self._lock:
            for failure in self._failures:
                if failure.times and failure.matching(request):
                    if failure.skip:
                        failure.skip -= 1
                    else:
                        failure.times -= 1
                        return failure
        return None

    def answer(self, request: Request) -> Answer:
        """What the first route that fits answers."""
        method = "GET" if request.method == "HEAD" else request.method
        for route_method, pattern, function in _ROUTES:
            match = pattern.fullmatch(request.path) if route_method == method else None
            if match:
                parts = {name: value and unquote(value) for name, value in match.groupdict().items()}
                with self._lock:
                    try:
                        return function(self, request, **parts)
                    except HubError as error:
                        return error.answer()
                    except Exception:  # a mistake of the stand-in, or a request it misread: the test should see it
                        self.unhandled.append(f"{request}: {traceback.format_exc()}")
                        return Answer.json({"error": "The stand-in failed"}, 500)
        self.unhandled.append(str(request))
        return Answer.json({"error": "Not found"}, 404)


class _Server(ThreadingHTTPServer):
    """Serves a stand-in, and on closing also ends the connections that clients keep open."""

    def __init__(self, address: tuple[str, int], hub: HubStandIn):
        super().__init__(address, _Handler)
        self.hub = hub
        self.connections: set[socket.socket] = set()

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the client went away, or the stand-in was stopped

    def log_message(self, *_) -> None:
        pass  # `HubStandIn.requests` has them all

    def respond(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, parse_qs(url.query), headers)
        hub.requests.append(request)
        failure = hub.failure_of(request)
        if failure and failure.status is None and request.method != "GET":
            self.hang_up()
            return
        request.body = self.read_body()  # a refused one too: else the next request would start in the middle of it
        if failure and failure.status is not None:
            answer = Answer.json({"error": "The stand-in was told to fail."}, failure.status)
        else:
            answer = hub.answer(request)
        cut = failure is not None and failure.status is None
        request.status = None if cut else answer.status
        self.send(answer, cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, answer: Answer, cut: bool) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.hang_up()
        elif self.command != "HEAD":
            self.wfile.write(answer.body)

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


# The endpoints. A route's pattern sees the path with its escapes, as a revision ("refs/pr/1") may hold a slash; its
# function gets the parts without them.

_ROUTES: list[tuple[str, re.Pattern, Callable[..., Answer]]] = []
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+(?:/[^/]+)?)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION = r"/(?P<revision>[^/]+)"


def route(method: str, pattern: str):
    """Register the function that answers `method` on the paths that match."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        _ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


@route("GET", "/api/whoami-v2")
def whoami(hub: HubStandIn, request: Request) -> Answer:
    account = hub.account(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    organizations = [{"type": "org", "name": name, "fullname": name} for name in account.organizations]
    access = {"accessToken": {"displayName": "stand-in", "role": "write"}}
    return Answer.json(
        {"type": "user", "name": account.name, "fullname": account.name, "orgs": organizations, "auth": access}
    )


@route("GET", "/api/agent-harnesses")
def agent_harnesses(hub: HubStandIn, request: Request) -> Answer:
    """The client asks this once a day, to name coding agents in its user agent."""
    return Answer.json({"standardEnvVars": [], "harnesses": {}})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: HubStandIn, request: Request) -> Answer:
    errors, warnings = check_card(request.json()["content"])
    status = 400 if errors else 200
    if request.headers.get("accept") == "text/plain":  # so asks `RepoCard.validate`, which shows the text as it is
        return Answer(status, "\n".join(errors + warnings).encode(), content_type="text/plain; charset=utf-8")
    payload = {
        kind: [{"message": text} for text in texts] for kind, texts in (("errors", errors), ("warnings", warnings))
    }
    return Answer.json(payload, status)


@route("POST", "/api/repos/create")
def create_repo(hub: HubStandIn, request: Request) -> Answer:
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
def auth_check(hub: HubStandIn, request: Request, kind: str, repo: str, write: str | None) -> Answer:
    hub.repository(request, kind, repo, "write" if write else "files")
    return Answer.json({})


@route("GET", API + "/refs")
def list_refs(hub: HubStandIn, request: Request, kind: str, repo: str) -> Answer:
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
def create_branch(hub: HubStandIn, request: Request, kind: str, repo: str, branch: str) -> Answer:
    repository = hub.repository(request, kind, repo, "write")
    if branch.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {branch}")
    if branch in repository.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repository.refs[f"refs/heads/{branch}"] = repository.resolve(request.json().get("startingPoint", "main")).sha
    return Answer.json({})


@route("POST", API + "/tag" + REVISION)
def create_tag(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str) -> Answer:
    repository, tag = hub.repository(request, kind, repo, "write"), request.json()["tag"]
    if tag in repository.tags:
        raise HubError(409, f"Tag already exists: {tag}")
    repository.tag(tag, revision)
    return Answer.json({})


@route("GET", API + "/commits" + REVISION)
def list_commits(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str) -> Answer:
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
def list_tree(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str, folder: str | None) -> Answer:
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
def paths_info(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str) -> Answer:
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
def preupload(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str) -> Answer:
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
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": _matches(path, ignored)}
        if path in files:
            answer["oid"] = files[path].etag
        answers.append(answer)
    return Answer.json({"files": answers})


@route("POST", PAGE + r"\.git/info/lfs/objects/batch")
def lfs_batch(hub: HubStandIn, request: Request, kind: str | None, repo: str) -> Answer:
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
def put_lfs_object(hub: HubStandIn, request: Request, kind: str, repo: str, oid: str) -> Answer:
    """Store an LFS object; the link, which the Hub signs, needs no token."""
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "The content does not have the SHA-256 that its address names")
    repository = hub.repositories[repo if kind == "models" else f"{kind}/{repo}"]
    repository.lfs_objects[oid] = request.body
    return Answer(headers={"ETag": f'"{oid}"'})


@route("POST", LFS_STORE + "/verify")
def verify_lfs_object(hub: HubStandIn, request: Request, kind: str, repo: str) -> Answer:
    wanted = request.json()
    stored = hub.repository(request, kind, repo, "files").lfs_objects.get(wanted["oid"])
    if stored is None or len(stored) != wanted["size"]:
        raise HubError(404, f"LFS object {wanted['oid']} of {wanted['size']} bytes not found", "EntryNotFound")
    return Answer.json({})


@route("POST", API + "/commit" + REVISION)
def create_commit(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str) -> Answer:
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
        repository.pull_requests[number] = PullRequest(number, header["summary"], account.name, _now())
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
def list_discussions(hub: HubStandIn, request: Request, kind: str, repo: str) -> Answer:
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
def resolve_file(hub: HubStandIn, request: Request, kind: str | None, repo: str, revision: str, path: str) -> Answer:
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
def repo_info(hub: HubStandIn, request: Request, kind: str, repo: str, revision: str | None) -> Answer:
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


# The check of a card


def check_card(content: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings of a README's metadata, for the fields that the Hub verifies.

    A license must be one that the Hub knows ("other" may come with a `license_name` and a `license_link`), names of
    data sets and models must be ids of the Hub and not paths, languages must be ISO 639 codes, and a model index must
    have its required fields. A card without metadata, and a pipeline tag that the Hub does not know, are warnings.
    """
    block = REGEX_YAML_BLOCK.search(content)
    if block is None or not block[2].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        card = yaml.safe_load(block[2])
    except yaml.YAMLError as error:
        return [f"Invalid YAML in README.md: {' '.join(str(error).split())}"], []
    if not isinstance(card, dict):
        return ["The metadata of README.md must be a mapping"], []

    errors = []
    for name in ("library_name", "pipeline_tag", "license_name", "license_link", "model_name", "base_model_relation"):
        if name in card and not isinstance(card[name], str):
            errors.append(f'"{name}" must be a string')
    for name in ("tags", "metrics"):
        if name in card and not isinstance(card[name], list):
            errors.append(f'"{name}" must be an array')
    for name in ("tags", "metrics", "license", "language", "datasets", "base_model"):
        values = card.get(name, [])
        for index, value in enumerate(values if isinstance(values, list) else [values]):
            where = f"{name}[{index}]" if isinstance(values, list) else name
            errors += _check_value(name, where, value)
    errors += _check_model_index(card.get("model-index", []))

    warnings = []
    tag = card.get("pipeline_tag")
    if isinstance(tag, str) and tag not in PIPELINE_TAGS:
        warnings.append(f'The pipeline tag "{tag}" is not in the official list: {", ".join(PIPELINE_TAGS)}')
    return errors, warnings


def _check_value(name: str, where: str, value) -> list[str]:
    if not isinstance(value, str):
        return [f'"{where}" must be a string']  # the language `no` without quotes is one: YAML's false
    if name == "license" and value not in LICENSES:
        return [f'"{where}" must be one of [{", ".join(LICENSES)}]']
    if name == "language" and not LANGUAGE.fullmatch(value):
        return [f'"{where}" with value "{value}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code.']
    if name in ("datasets", "base_model") and not REPOSITORY_ID.fullmatch(value):
        kind = "dataset" if name == "datasets" else "model"
        return [f'"{where}" with value "{value}" is not valid. Use a {kind} id from https://hf.co/{kind}s.']
    return []


def _check_model_index(index) -> list[str]:
    """The errors of evaluation results in the form of `model-index`."""
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []

    def require(where: str, holder, *names: str) -> None:
        if not isinstance(holder, dict):
            errors.append(f'"{where}" must be of type object')
        else:
            errors.extend(f'"{where}.{name}" is required' for name in names if holder.get(name) is None)

    for number, model in enumerate(index):
        require(f"model-index[{number}]", model, "name", "results")
        results = model.get("results") if isinstance(model, dict) else None
        for position, result in enumerate(results or []):
            where = f"model-index[{number}].results[{position}]"
            require(where, result, "task", "dataset", "metrics")
            if isinstance(result, dict):
                require(f"{where}.task", result.get("task", {}), "type")
                require(f"{where}.dataset", result.get("dataset", {}), "type", "name")
                for place, metric in enumerate(result.get("metrics") or []):
                    require(f"{where}.metrics[{place}]", metric, "type", "value")
    return errors

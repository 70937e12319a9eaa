"""The stand-in itself, and its server."""

import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .endpoints import ROUTES
from .messages import Answer, HubError, Request
from .store import GITATTRIBUTES, Account, Repository


@dataclass
class _Failure:
    matching: Callable[[Request], bool]
    skip: int
    times: int
    status: int | None


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
        for route_method, pattern, function in ROUTES:
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

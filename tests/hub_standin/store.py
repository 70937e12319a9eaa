"""What a repository holds."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch

from .messages import HubError


LARGEST_REGULAR_FILE = 10 * 1024 * 1024  # the Hub stores what is larger as LFS, whatever .gitattributes says
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.xz *.zip "
    "*.zst *tfevents*"
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())


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
        self.commits[sha] = Commit(sha, parent, title, message, author, now(), files)
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
        return size > LARGEST_REGULAR_FILE or matches(path, patterns)


@dataclass
class Account:
    """Whom a token belongs to, and which repositories beside its own it was granted."""

    name: str
    organizations: tuple[str, ...] = ()
    granted: set[str] = field(default_factory=set)

    def owns(self, namespace: str) -> bool:
        return namespace in (self.name, *self.organizations)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def matches(path: str, patterns: list[str]) -> bool:
    """Whether git would apply one of the patterns: to the file's name, or to its path if the pattern has a slash."""
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch(path if "/" in pattern else name, pattern.lstrip("/")) for pattern in patterns)

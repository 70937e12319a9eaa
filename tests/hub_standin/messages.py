"""Requests and answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote


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

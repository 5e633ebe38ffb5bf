"""A stand-in for the Hub's HTTP interface, driven by the real client; it can be cut anywhere."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import urlsplit

from support.loopback import serving

LARGE = (".parquet",)
"""Endings of files that the Hub keeps by content, beside the repository."""

Cut = Literal["before", "after"]


@dataclass
class Dataset:
    """One repository.

    Attributes:
        private: as it was made.
        files: content by path.
        commits: what changed, one entry a commit; the first is the Hub's own.
    """

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.parquet lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["initial commit"])

    @property
    def sha(self) -> str:
        """Id of the latest commit."""
        return hashlib.sha1("\n".join(self.commits).encode()).hexdigest()


@dataclass
class FakeHub:
    """What the stand-in holds, and how it misbehaves.

    Attributes:
        datasets: by ``namespace/name``.
        objects: large files by their SHA-256.
        token: that it asks for.
        asked: method and path of every request.
        answers: statuses to give in place of serving requests, by their number from 1, with the
            headers of each.
        cut_at: number of the request at which the connection ends, None for never.
        cut: whether that request is served first.
        dead: whether it serves nothing from there on.
    """

    address: str = ""
    token: str = "hf_example_token"
    datasets: dict[str, Dataset] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answers: dict[int, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cut_at: int | None = None
    cut: Cut = "before"
    dead: bool = False

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Serve one request."""
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if parts[0] == "objects":
            if method == "PUT":
                self.objects[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, self._batch(json.loads(body))
        name = "/".join(parts[2:4])
        if parts[:2] != ["api", "datasets"] or name not in self.datasets:
            return 404, {"error": "Repository not found"}
        return self._serve_dataset(name, parts[4:5], body)

    def _serve_dataset(self, name: str, what: list[str], body: bytes) -> tuple[int, Any]:
        dataset = self.datasets[name]
        if what == ["preupload"]:
            return 200, self._preupload(dataset, json.loads(body))
        if what == ["commit"]:
            return self._commit(dataset, [json.loads(line) for line in body.splitlines()])
        siblings = [{"rfilename": path} for path in dataset.files]
        return 200, {"id": name, "sha": dataset.sha, "siblings": siblings}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.address}/datasets/{name}"}
        if name in self.datasets:
            return 409, {"error": "You already created this dataset repo", **address}
        private = asked.get("private") or asked.get("visibility") == "private"
        self.datasets[name] = Dataset(bool(private))
        return 200, {"name": name, **address}

    def _preupload(self, dataset: Dataset, asked: dict[str, Any]) -> dict[str, Any]:
        files = []
        for one in asked["files"]:
            large = one["path"].endswith(LARGE)
            content = dataset.files.get(one["path"])
            oid = None
            if content is not None:
                blob = b"blob %d\0" % len(content) + content
                oid = (hashlib.sha256(content) if large else hashlib.sha1(blob)).hexdigest()
            mode = "lfs" if large else "regular"
            files.append(
                {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        return {"files": files}

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in asked["objects"]:
            href = {"href": f"{self.address}/objects/{one['oid']}", "header": {}}
            known = one["oid"] in self.objects
            objects.append(one if known else {**one, "actions": {"upload": href}})
        return {"transfer": "basic", "objects": objects}

    def _commit(self, dataset: Dataset, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        changes: list[str] = []
        files = dict(dataset.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit") not in (None, dataset.sha):
                    return 412, {"error": "A commit has happened since. Please refresh."}
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.objects[value["oid"]]
            changes.append(f"{line['key']} {value.get('path', '')}")
        dataset.files = files
        dataset.commits.append("\n".join(changes))
        return 200, {
            "commitUrl": f"{self.address}/datasets/x/y/commit/{dataset.sha}",
            "commitOid": dataset.sha,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    lock: threading.Lock

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urlsplit(self.path).path
        with self.lock:
            hub = self.hub
            hub.asked.append(f"{self.command} {path}")
            number = len(hub.asked)
            here = hub.cut_at is not None and number == hub.cut_at
            if (here and hub.cut == "before") or (hub.dead and number > (hub.cut_at or 0)):
                self.close_connection = True
                self.connection.close()
                return
            status, headers = hub.answers.get(number, (0, {}))
            answer: Any = {"error": "not now"}
            if not status:
                said = self.headers.get("authorization")
                signed = path.startswith("/objects/")  # such an address is a secret of its own
                allowed = signed or said == f"Bearer {hub.token}"
                status, answer = (
                    hub.serve(self.command, path, body) if allowed else (401, {"error": "no"})
                )
        if here:
            self.close_connection = True
            self.connection.close()
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815 (http.server's names)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a stand-in on loopback."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub, "lock": threading.Lock()})
    with serving(handler) as hub.address:
        yield hub

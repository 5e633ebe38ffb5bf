"""`process-shard --upload` puts a shard's file into a private dataset, as seen on the wire."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from worker_testing import KILL_AFTER, SOURCE

pytestmark = pytest.mark.unit

REPOSITORY = "example-org/answers"
TOKEN = "hf_example"


@dataclass
class Hub:
    """A stand-in for the Hub's HTTP interface; there is no real one here.

    Attributes:
        created: bodies of the requests that create a repository.
        files: content by path of what was committed.
        tokens: what the requests were authorised by.
    """

    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    refuses: bool = False
    url: str = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return 403, {"error": "You have no right to do this."}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.url}/datasets/{REPOSITORY}"}
        if path.startswith(f"/api/datasets/{REPOSITORY}/preupload/main"):
            wanted = [one["path"] for one in json.loads(body)["files"]]
            return 200, {
                "files": [
                    {"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in wanted
                ]
            }
        if path.startswith(f"/api/datasets/{REPOSITORY}/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            commit = f"{self.url}/datasets/{REPOSITORY}/commit/{'a' * 40}"
            return 200, {"commitUrl": commit, "commitOid": "a" * 40, "pullRequestUrl": None}
        return 404, {"error": path}


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.tokens.add(self.headers.get("Authorization"))
            status, value = made.answer(self.path, body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def process(hub: Hub, model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    questions = folder / "questions.jsonl"
    questions.write_text('{"context": "Say hi.", "gen_kwargs": "{}"}\n' * 3)
    return subprocess.run(
        [
            *(sys.executable, "-m", "shard_worker", "process-shard", "--engine", "echo"),
            *("--global_size", "1", "--rank", "0", "--input_dataset", str(questions)),
            *("--model_name", str(model), "--output_dataset", str(folder / "out")),
            *("--upload", "--repo_id", REPOSITORY),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(folder / "hf"),
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=KILL_AFTER,
        check=False,
    )


def test_the_shards_file_arrives_in_a_private_dataset(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    done = process(hub, model, tmp_path)

    assert done.returncode == 0, done.stderr
    (created,) = hub.created
    said = (created["organization"], created["name"], created["type"], created["visibility"])
    assert said == ("example-org", "answers", "dataset", "private")
    assert list(hub.files) == ["data/train-00000-of-00001.parquet"]
    table = pq.read_table(io.BytesIO(hub.files["data/train-00000-of-00001.parquet"]))
    assert table.column("model_outputs").to_pylist() == ["Say hi."] * 3
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stderr + done.stdout


def test_a_refused_upload_fails_and_the_answers_stay(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.refuses = True

    done = process(hub, model, tmp_path)

    assert done.returncode != 0
    assert "You have no right to do this" in done.stderr
    assert (tmp_path / "out" / "train-00000-of-00001.parquet").exists()

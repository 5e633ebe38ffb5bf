"""A model comes to the cluster by whoever reaches the Hub: the real client, a Hub at the wire."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.loopback import serving
from support.profiles import profile
from support.sshd import Sshd, clusters_own, running_sshd, transport_to

from nightshard.clusters.models import resolve_model
from nightshard.core.errors import UserError
from nightshard.local.info import ClusterInfo
from nightshard.orchestration.fetching import fetcher

pytestmark = pytest.mark.integration

COMMIT = hashlib.sha1(b"a commit").hexdigest()
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights" * 1000}


@contextmanager
def hub(size: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve one model; yields the address and the requests. ``size`` is what it claims to take."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve(body=True)

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def _serve(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            asked.append(f"{self.command} {path}")
            data, name = self._content(path), path.rsplit("/", 1)[-1]
            self.send_response(404 if data is None else 200)
            if data is None:
                self.send_header("X-Error-Code", "RepoNotFound")
                data = b'{"error": "Repository not found"}'
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Disposition", f'inline; filename="{name}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def _content(self, path: str) -> bytes | None:
            if path.startswith("/api/models/org/name/revision/"):
                files = [
                    {"rfilename": name, "size": size or len(data)} for name, data in FILES.items()
                ]
                return json.dumps({"id": "org/name", "sha": COMMIT, "siblings": files}).encode()
            if path.startswith(f"/api/models/org/name/tree/{COMMIT}"):
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0"}
                    for name, data in FILES.items()
                ]
                return json.dumps(entries).encode()
            start = f"/org/name/resolve/{COMMIT}/"
            return FILES.get(path.removeprefix(start)) if path.startswith(start) else None

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield address, asked


@pytest.fixture(autouse=True)
def transfer_node(
    monkeypatch: pytest.MonkeyPatch, local_cluster: ClusterInfo, tmp_path: Path
) -> Iterator[Sshd]:
    """A node beside the login node that Airflow has a connection to."""
    monkeypatch.setenv("NIGHTSHARD_STATE", str(tmp_path / "state"))
    with running_sshd(local_cluster, tmp_path / "node") as node:
        connection = local_cluster.airflow_connection()
        extra = {**connection["extra"], "host_key": node.host_key}
        connection |= {"port": node.endpoint.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_NIGHTSHARD_TRANSFER", json.dumps(connection))
        yield node


@pytest.mark.parametrize("download", ["login", "transfer", "airflow"])
async def test_a_model_is_fetched_by_its_commit_and_found_from_then_on(
    download: str,
    *,
    local_cluster: ClusterInfo,
    transfer_node: Sshd,
    worker_env: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with hub() as (address, asked):
        host, _, port = address.removeprefix("http://").partition(":")
        account = {"conn_type": "http", "schema": "http", "host": host, "port": int(port)}
        account |= {"login": "org", "password": "hf_example_token"}
        monkeypatch.setenv("AIRFLOW_CONN_NIGHTSHARD_HUB", json.dumps(account))
        site = profile(
            tmp_path,
            local_cluster,
            worker_env,
            models={
                "dir": str(tmp_path / "models"),
                "download": download,
                "transfer_conn_id": "nightshard_transfer",
            },
            worker={"setup": [f"export HF_ENDPOINT={address}"]},
        )
        async with transport_to(clusters_own(local_cluster)) as transport:
            fetch = fetcher(transport, site)
            path = Path(await resolve_model(transport, site, "org/name", "step-1", fetch=fetch))
            assert path.name == COMMIT
            assert path.is_relative_to(tmp_path / "models")
            for name, data in FILES.items():
                assert (path / name).read_bytes() == data
            # A branch is asked for anew, and a commit never: its files come once.
            await resolve_model(transport, site, "org/name", "step-1", fetch=fetch)
            before = len(asked)
            assert await resolve_model(transport, site, "org/name", COMMIT, fetch=fetch) == str(
                path
            )
            assert len(asked) == before
        weights = f"GET /org/name/resolve/{COMMIT}/model.safetensors"
        assert asked.count(weights) == 1
    by_it = "Accepted publickey" in transfer_node.log.read_text()
    assert by_it == (download == "transfer")


@pytest.mark.parametrize("download", ["login", "airflow"])
async def test_a_model_that_the_hub_does_not_have_gets_one_sentence(
    download: str,
    local_cluster: ClusterInfo,
    worker_env: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with hub() as (address, _):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        site = profile(
            tmp_path,
            local_cluster,
            worker_env,
            models={"dir": str(tmp_path / "models"), "download": download},
            worker={"setup": [f"export HF_ENDPOINT={address}"]},
        )
        async with transport_to(clusters_own(local_cluster)) as transport:
            with pytest.raises(
                UserError, match="The model org/gone at revision main could"
            ) as told:
                await resolve_model(transport, site, "org/gone", fetch=fetcher(transport, site))
    assert "\n" not in str(told.value)


async def test_a_model_that_is_larger_than_the_disk_is_not_begun(
    local_cluster: ClusterInfo, worker_env: Path, tmp_path: Path
) -> None:
    with hub(size=1 << 50) as (address, asked):
        site = profile(
            tmp_path,
            local_cluster,
            worker_env,
            models={"dir": str(tmp_path / "models"), "download": "login"},
            worker={"setup": [f"export HF_ENDPOINT={address}"]},
        )
        async with transport_to(clusters_own(local_cluster)) as transport:
            with pytest.raises(UserError, match=r"it takes 3145728\.0 GiB and .* GiB free"):
                await resolve_model(transport, site, "org/name")
    assert not any("/resolve/" in one for one in asked)

"""Weights through huggingface-hub: from a cache laid out by hand, or a hub on this machine.

Each case is a process of its own, as the hub's library reads its environment only once.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlx.core as mx
import pytest

from ondevice import create_model, model_spec, save_model
from ondevice.errors import WeightsError
from ondevice.registry import ModelSpec
from ondevice.weights import folder as weights, hub

from ... import ROOT

COMMIT, OTHER = "a" * 40, "b" * 40
REPO = "timm/shvit_s9.in1k"
FETCH = """
import sys
from ondevice.errors import HubError
from ondevice.weights.hub import fetch
from ondevice.registry import Checkpoint
repo, file, revision = sys.argv[1:]
place = {"url" if "://" in repo else "repo": repo}
try:
    print(fetch(Checkpoint(tag="", file=file, **place), revision or None))
except HubError as error:
    print("HubError:", error)
"""


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "home" / "hub"


@pytest.fixture
def fetched(tmp_path):
    """What fetching a file prints, when stderr says at most that one comes from an address."""

    def run(file="model.safetensors", revision="", repo=REPO, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
        done = subprocess.run(
            [sys.executable, "-c", FETCH, repo, file, revision],
            env={**clean, "HF_HOME": str(tmp_path / "home"), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        said = rf"fetching {re.escape(repo)} \(\d+ MB\), once\n" if "://" in repo else ""
        assert re.fullmatch(f"({said})?", done.stderr)
        assert done.stdout.count("\n") == 1
        return done.stdout.strip()

    return run


class Hub(HTTPServer):
    """One file, or one error, for whatever is asked."""

    def __init__(self, status=200, error="", content=b"weights", lost=0):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.error, self.content, self.lost = status, error, content, lost
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server
        hub.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(hub.status)
        for name, value in {
            "X-Error-Code": hub.error,
            "X-Repo-Commit": COMMIT,
            "ETag": '"etag"',
            "Content-Length": str(len(hub.content) + hub.lost),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(hub.content)

    do_HEAD = do_GET  # noqa: N815 - names that http.server looks for

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(Hub(**options))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def put(cache, files, *, repo=REPO, commit=COMMIT, ref="main"):
    """Lay ``files`` out as the hub's library caches them."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    for sub in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    for name, content in files.items():
        blob = folder / "blobs" / f"{commit[:4]}-{name}"
        blob.write_bytes(content)
        (folder / "snapshots" / commit / name).symlink_to(blob)


# --- from an address


def test_a_file_at_an_address_is_fetched_once(tmp_path, fetched, serve):
    server = serve()
    url = f"{server.url}/authors/v1.0/weights.pth"
    path = Path(fetched(repo=url))
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(tmp_path / "home")
    assert path.name == "weights.pth"
    assert Path(fetched(repo=url, HF_HUB_OFFLINE="1")) == path
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("served", "given", "reason"),
    [
        ({"status": 404}, {}, "HTTP Error 404: Not Found"),
        ({"lost": 5}, {}, "it ended after 7 of 12 bytes"),
        ({}, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_nothing_is_left_of_a_file_that_does_not_come(
    tmp_path, fetched, serve, served, given, reason
):
    url = f"{serve(**served).url}/weights.pth"
    said = fetched(repo=url, **given)
    assert said.startswith(f"HubError: {url} cannot be fetched ({reason}); run this once with")
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    place = Path(said.rpartition("put the file at ")[2])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"by hand")
    assert Path(fetched(repo=url, **given)).read_bytes() == b"by hand"


def test_a_file_at_an_address_has_no_revisions(fetched, serve):
    url = f"{serve().url}/weights.pth"
    assert fetched(repo=url, revision="v2") == f"HubError: {url} has no revisions; given 'v2'"


# --- from the cache


@pytest.mark.parametrize("name", ["model.safetensors", "open_clip_model.safetensors", "x.pt"])
def test_what_is_cached_needs_no_network(name, cache, fetched):
    put(cache, {name: b"cached"})
    path = Path(fetched(name, HF_HUB_OFFLINE="1"))
    assert path.read_bytes() == b"cached"
    assert path.name == name


def test_what_is_cached_is_not_asked_for(cache, fetched, serve):
    put(cache, {"model.safetensors": b"cached"})
    server = serve()
    assert Path(fetched(HF_ENDPOINT=server.url)).read_bytes() == b"cached"
    assert server.asked == []


@pytest.mark.parametrize("revision", ["v2", OTHER])
def test_a_revision_is_a_branch_or_a_commit(revision, cache, fetched):
    put(cache, {"model.safetensors": b"first"})
    put(cache, {"model.safetensors": b"second"}, commit=OTHER, ref="v2")
    path = fetched(revision=revision, HF_HUB_OFFLINE="1")
    assert Path(path).read_bytes() == b"second"


def test_a_cache_may_be_elsewhere(tmp_path, fetched):
    put(tmp_path / "shelf", {"model.safetensors": b"cached"})
    path = fetched(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "shelf"))
    assert Path(path).read_bytes() == b"cached"


INDEX = b'{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'


def test_all_files_of_an_index_are_fetched(cache, fetched):
    index = "model.safetensors.index.json"
    put(cache, {index: INDEX, "1.safetensors": b"", "2.safetensors": b""})
    assert fetched(index, HF_HUB_OFFLINE="1").endswith(index)
    (cache / "models--timm--shvit_s9.in1k" / "snapshots" / COMMIT / "2.safetensors").unlink()
    assert "is not in the cache" in fetched(index, HF_HUB_OFFLINE="1")


def test_a_model_is_created_from_the_cache(cache, tmp_path):
    model = create_model("shvit_s1")
    saved = save_model(model, tmp_path / "saved") / "model.safetensors"
    put(cache, {"model.safetensors": saved.read_bytes()}, repo="timm/shvit_s1.in1k")
    code = (
        "from ondevice import create_model; import mlx.core as mx\n"
        "model = create_model('shvit_s1', pretrained=True)\n"
        "print(model.info.name, model(mx.ones((1, 64, 64, 3)))[0, :3].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    wanted = model(mx.ones((1, 64, 64, 3)))[0, :3].tolist()
    assert (done.stdout, done.stderr) == (f"shvit_s1.in1k {wanted}\n", "")


# --- from a hub


def test_what_is_not_cached_is_fetched_once_with_the_token(cache, fetched, serve):
    server = serve()
    environment = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_secret"}
    path = Path(fetched(**environment))
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(cache)
    assert path.parent.name == COMMIT
    assert (f"/{REPO}/resolve/main/model.safetensors", "Bearer hf_secret") in server.asked
    count = len(server.asked)
    assert Path(fetched(**environment)) == path
    assert len(server.asked) == count


def test_a_terminal_gets_a_progress_bar(tmp_path, serve):
    termios = pytest.importorskip("termios")
    reader, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run(
        [sys.executable, "-c", FETCH, REPO, "model.safetensors", ""],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": serve().url},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while more := os.read(reader, 10_000):
            shown += more
    os.close(reader)
    assert b"100%" in shown


# --- refusals, each one line


def test_offline_and_not_cached_says_what_to_do(cache, fetched):
    said = fetched(HF_HUB_OFFLINE="1")
    assert said == (
        f"HubError: {REPO} is not in the cache {cache}, and the hub cannot be reached "
        "(HF_HUB_OFFLINE is set); run this once with a network, or copy that cache from a "
        "machine that has one"
    )


def test_no_network_is_said_at_once(fetched):
    start = time.perf_counter()
    said = fetched(HF_ENDPOINT="http://hub.invalid")
    assert "is not in the cache" in said
    assert "HF_HUB_OFFLINE" not in said
    assert time.perf_counter() - start < 15  # the hub's library would try for 24 seconds


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (403, "GatedRepo", "is gated: accept its terms at {url}/{repo}, then set HF_TOKEN"),
        (401, "RepoNotFound", "does not exist, or only for some: set HF_TOKEN"),
        (404, "RevisionNotFound", "has no revision 'v9'; {url}/{repo}/commits/main lists"),
        (404, "EntryNotFound", "has no file model.safetensors at revision 'v9'; see {url}"),
    ],
)
def test_what_the_hub_refuses_is_explained(status, error, said, fetched, serve):
    server = serve(status=status, error=error)
    expected = f"HubError: {REPO} {said.format(url=server.url, repo=REPO)}"
    assert fetched(revision="v9", HF_ENDPOINT=server.url).startswith(expected)


# --- licences


@pytest.fixture
def fresh():
    hub.mention_license.cache_clear()
    yield
    hub.mention_license.cache_clear()


def test_a_licence_that_restricts_is_said_once(fresh, caplog):
    for _ in range(2):
        hub.mention_license("timm/x", "apple-amlr")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "timm/x: these weights are under the licence apple-amlr" in caplog.text


def test_a_licence_that_restricts_is_said_before_a_download(fresh, caplog, monkeypatch):
    restricted = replace(model_spec("shvit_s1").checkpoints[0], license="apple-amlr")
    monkeypatch.setattr(ModelSpec, "checkpoint", lambda *args: restricted)
    monkeypatch.setattr(weights, "fetch", lambda *args, **kwargs: weights.SHIPPED / "none")
    with pytest.raises(WeightsError, match=r"none.*No such file"):
        create_model("shvit_s1", pretrained=True)
    assert caplog.text.count("shvit_s1.in1k: these weights are under") == 1


def test_a_licence_that_does_not_is_not_said(fresh, caplog):
    hub.mention_license("timm/x", "mit")
    assert caplog.records == []


def test_a_licence_that_restricts_is_said_when_a_saved_model_is_loaded(fresh, caplog, tmp_path):
    model = create_model("shvit_nano")
    model.info = replace(model.info, license="apple-amlr")
    create_model(str(save_model(model, tmp_path / "x")))
    assert "apple-amlr" in caplog.text


# --- a quick start


def test_the_hub_and_coremltools_are_imported_only_when_needed():
    code = "import sys, ondevice.weights.hub, ondevice.weights; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert "ondevice.weights.hub" in loaded
    assert not {"huggingface_hub", "coremltools"} & loaded

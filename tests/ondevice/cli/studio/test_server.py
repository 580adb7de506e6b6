"""The studio's server: what is uploaded, what is kept, and how it bears a load.

$STUDIO_SECONDS is how long it is under load: 3600 for an hour.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .server import Server, serving

pytest.importorskip("gradio")

SECONDS = float(os.environ.get("STUDIO_SECONDS", 20))
USERS = 2
GROWTH = 60 if SECONDS < 600 else 200  # megabytes it may take up meanwhile
LOOKS = 12  # how often its memory is looked at meanwhile, to see whether it levels off


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def post(server: Server, content: bytes, name: str = "photo.png") -> bytes:
    """Upload a file as a browser does."""
    boundary = "----boundary"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"{server.address}/gradio_api/upload",
        body,
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_what_is_too_large_is_refused_and_not_kept(server):
    post(server, b"x" * 1000)
    kept = server.uploads()
    assert [path.stat().st_size for path in kept] == [1000]
    with pytest.raises((urllib.error.HTTPError, ConnectionError)) as error:
        post(server, b"x" * (50 * 2**20 + 1))
    if isinstance(error.value, urllib.error.HTTPError):  # else the connection was closed
        with error.value as answer:
            assert answer.code == 413
    assert server.uploads() == kept


def test_a_name_cannot_leave_the_folder(server, tmp_path):
    post(server, b"x" * 10, "../../../../../../escaped.png")
    assert not list(Path("/").glob("escaped.png"))
    assert any(path.name == "escaped.png" for path in server.uploads())


def test_uploads_are_deleted_after_a_while():
    with serving(delete=(1, 2)) as short:
        post(short, b"x" * 1000)
        assert short.uploads()
        end = time.monotonic() + 30
        while short.uploads() and time.monotonic() < end:
            time.sleep(0.5)
        assert not short.uploads()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_at_the_end(how):
    with serving() as running:
        post(running, b"x" * 1000)
        assert running.uploads()
        running.stop(how)
        assert not list(running.folder.glob("ondevice-studio-*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client's
def test_memory_does_not_grow_under_load(server, photo, tmp_path):
    from gradio_client import Client, handle_file

    clients = [
        Client(server.address, verbose=False, download_files=tmp_path) for _ in range(USERS)
    ]
    wanted = ("shvit_nano.cifar10", "palette4")

    def ask(client: Client) -> str:
        found = client.predict(handle_file(photo), *wanted, api_name="/answer")
        return str(found[0]["label"])

    label = {ask(client) for client in clients for _ in range(3)}
    before, end = server.memory(), time.monotonic() + SECONDS
    said: list[str] = []

    def user(client: Client) -> None:
        while time.monotonic() < end:
            said.append(ask(client))

    threads = [threading.Thread(target=user, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for _ in range(LOOKS):
        time.sleep(SECONDS / LOOKS)
        print(f"{len(said):6} answers {server.memory() - before:+7.1f} MB", flush=True)
    for thread in threads:
        thread.join()
    growth = server.memory() - before
    print(f"{len(said)} answers in {SECONDS:.0f} s, {before:.0f} MB and {growth:+.1f} MB")
    assert len(said) > SECONDS / 10
    assert {*said} == label
    assert len(label) == 1
    assert growth < GROWTH

"""``ondevice studio``: the chain in a browser, for those who would rather look than read."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import tempfile
from pathlib import Path

import click

from ...errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
USER = "ondevice"


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    help="A model to choose from, beside the shipped ones; give it again for several.",
)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    help="File that `ondevice encode` wrote, to look for photos in.",
)
@click.option(
    "--host",
    default=LOOPBACK[0],
    show_default=True,
    help="Address to listen at; with any but this machine's own, a password is asked for.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True)
@click.option("--no-browser", is_flag=True, help="Open no page.")
def studio(
    models: tuple[str, ...], index: Path | None, host: str, port: int, no_browser: bool
) -> None:
    """Open a page: photos through models and packages, and what they see in them.

    Boxes, depth and masks, labels of your own, search in an index, what smaller packages cost
    and what is inside them, as far as a --model or an --index is for it.

    Nothing leaves this machine: the page is served from here, photos are deleted within
    two hours. Needs the extra studio.
    """
    _check_address(host, port)
    token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="ondevice-studio-") as folder:
        # Gradio reads both when it is imported; what is uploaded goes with the folder.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        try:
            from .page import build, serve
        except ImportError as error:
            missing = f"{error.name} is missing: pip install 'ondevice[studio]'"
            raise ConfigError(missing) from error
        from .workshop import Workshop

        page = build(Workshop(Path(folder), models, index))
        if token:
            click.echo(f"user {USER}, password {token}", err=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the folder goes then, too
        serve(page, host, port, (USER, token) if token else None, browser=not no_browser)


def _check_address(host: str, port: int) -> None:
    """Raises ConfigError where nothing can be served, before the page is built."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {error.strerror}; give another --port or "
            "--host"
        ) from error

"""Published weights, through huggingface-hub's cache, or from an address beside it.

Its environment variables do what they always do: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ..config import RESTRICTED
from ..errors import HubError, OnDeviceError, printable
from ..registry import Checkpoint
from .output import replacing
from .safetensors import INDEX, read_index

logger = logging.getLogger("ondevice")  # unconfigured, Python shows warnings on stderr

TIMEOUT = 30  # seconds without an answer

# What an error of huggingface-hub, by the name of its class, means to who asked for weights.
_ABSENT = (
    "is not in the cache {cache}, and the hub cannot be reached{why}; "
    "run this once with a network, or copy that cache from a machine that has one"
)
_REASONS = {
    "GatedRepoError": "is gated: accept its terms at {url}, then set HF_TOKEN",
    "RepositoryNotFoundError": "does not exist, or only for some: set HF_TOKEN if you are one",
    "RevisionNotFoundError": "has no revision {revision!r}; {url}/commits/main lists them",
    "LocalEntryNotFoundError": _ABSENT,
    "EntryNotFoundError": "has no file {file} at revision {revision!r}; see {url}/tree/main",
    "HFValidationError": "is no name that the hub knows",
}


def fetch(checkpoint: Checkpoint, revision: str | None = None) -> Path:
    """The file of a checkpoint, or the index of one in several files, all of them present.

    What is in the cache is taken without asking the hub. Raises HubError.
    """
    if checkpoint.url:
        return _fetch_url(checkpoint.url, revision)
    path = _fetch(checkpoint.repo, checkpoint.file, revision or "main")
    if checkpoint.file.endswith(INDEX):
        commit = path.parent.name  # so that all files are of one revision
        for shard in sorted(set(read_index(path).values())):
            _fetch(checkpoint.repo, shard, commit)
    return path


def fetch_model(repo: str, revision: str | None = None) -> Path:
    """The folder of a model that timm pushed, its config and weights in it. Raises HubError."""
    config = fetch(Checkpoint(tag="", repo=repo, file="config.json"), revision)
    commit = config.parent.name  # so that both are of one revision
    try:
        fetch(Checkpoint(tag="", repo=repo), commit)
    except HubError as error:
        try:  # what timm wrote before it had safetensors
            fetch(Checkpoint(tag="", repo=repo, file="pytorch_model.bin"), commit)
        except HubError:
            raise error from None
    return config.parent


@cache  # said once
def mention_license(name: str, license: str) -> None:
    """Say so if weights may not be passed on freely."""
    if license in RESTRICTED:
        logger.warning(
            f"{name}: these weights are under the licence {license}, which limits their use "
            "and forbids or limits passing them on, converted or not; read it before you do"
        )


def fetch_folder(
    repo: str,
    patterns: Iterable[str],
    missing: Callable[[Path], list[str]],
    revision: str | None = None,
) -> Path:
    """The folder of a repository's files that match ``patterns``.

    A folder in the cache in which nothing is ``missing`` is taken without asking the hub.
    Raises HubError.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    file, revision = "config.json", revision or "main"
    with _explained(repo, file, revision):
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str) and not missing(Path(cached).parent):
            return Path(cached).parent
        _require_network(file)
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))


def _fetch(repo: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with _explained(repo, file, revision):
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        _require_network(file)
        return Path(hf_hub_download(repo, file, revision=revision))


def _fetch_url(url: str, revision: str | None) -> Path:
    """The file at an address of the web, which is kept beside the hub's cache."""
    from http.client import HTTPException

    from huggingface_hub import constants

    if revision:
        raise HubError(f"{url} has no revisions; given {revision!r}")
    place = urlsplit(url)
    path = Path(constants.HF_HOME) / "ondevice" / f"{place.netloc}{place.path}"
    if path.is_file():
        return path
    if constants.HF_HUB_OFFLINE:
        raise _unreachable(url, path, "HF_HUB_OFFLINE is set")
    with replacing(path, force=True) as partial:
        try:
            _copy(url, partial)
        except (OSError, HTTPException) as error:
            raise _unreachable(url, path, str(error) or type(error).__name__) from error
    return path


def _copy(url: str, path: Path) -> None:
    """Raises OSError or HTTPException."""
    from urllib.request import urlopen  # 40 ms, which only a download has to spend

    with urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        length = answer.headers["Content-Length"]
        size = f" ({int(length) / 1e6:.0f} MB)" if length else ""
        logger.warning(f"fetching {url}{size}, once")
        shutil.copyfileobj(answer, file)
    if length and path.stat().st_size != int(length):
        raise OSError(f"it ended after {path.stat().st_size:,} of {int(length):,} bytes")


def _unreachable(url: str, path: Path, why: str) -> HubError:
    return HubError(
        f"{url} cannot be fetched ({printable(why, 200)}); run this once with a network, or "
        f"put the file at {path}"
    )


def _require_network(file: str) -> None:
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE or not _has_network(constants.ENDPOINT):
        raise errors.LocalEntryNotFoundError(file)


@contextmanager
def _explained(repo: str, file: str, revision: str) -> Iterator[None]:
    """What goes wrong inside becomes one HubError about ``repo``, or is one of ours."""
    from huggingface_hub import constants

    try:
        with quiet("huggingface_hub"):
            yield
    except OnDeviceError:
        raise
    except Exception as error:  # each release has its own set, of several HTTP libraries
        known = [_REASONS[c.__name__] for c in type(error).__mro__ if c.__name__ in _REASONS]
        reason = (known or ["cannot be fetched: {error}"])[0].format(
            cache=constants.HF_HUB_CACHE,
            why=" (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else "",
            url=f"{constants.ENDPOINT}/{repo}",
            revision=revision,
            file=file,
            error=printable(" ".join(f"{type(error).__name__}: {error}".split())),
        )
        raise HubError(f"{repo} {reason}") from error


def _has_network(endpoint: str) -> bool:
    """Whether the hub's name is known; if not, huggingface-hub would retry for 24 seconds."""
    from urllib.request import getproxies  # 40 ms, which only a download has to spend

    try:
        return bool(getproxies() or socket.getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """A library keeps its retries and advice to itself: an error says it in one line."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Several processes that share one job, over MLX's own distributed backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import ConfigError, OnDeviceError

CHUNK = 4 * 2**20  # bytes that a rank sends at a time


class Ranks:
    """The processes of a group; of one alone without a group. Every call is collective.

    ``kept`` says of what survives when one of them is lost.
    """

    def __init__(
        self, group: mx.distributed.Group | None = None, kept: str = "what is encoded is kept"
    ) -> None:
        self.group, self.kept = group, kept
        self.rank = group.rank() if group else 0
        self.size = group.size() if group else 1

    def gather(self, values: Any) -> Any:
        """Everyone's ``values``, an array of one shape everywhere, one row a rank.

        Raises OnDeviceError if another rank has ended.
        """
        values = np.asarray(values)
        if self.size == 1 or not values.size:
            return np.stack([values] * self.size)
        try:
            found = mx.distributed.all_gather(mx.array(values[None]), group=self.group)
            mx.eval(found)  # np.array alone gives noise when a rank is lost, and no error
            return np.array(found)
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> OnDeviceError:
        return OnDeviceError(
            f"rank {self.rank} lost another one ({error}); run the same command again: "
            f"{self.kept}"
        )

    def sum(self, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
        """The sums over all ranks of arrays of the same names and shapes, in float32.

        Raises OnDeviceError if another rank has ended.
        """
        if self.size == 1 or not arrays:
            return arrays
        flat = mx.concatenate([a.reshape(-1).astype(mx.float32) for a in arrays.values()])
        try:
            total = mx.distributed.all_sum(flat, group=self.group)
            mx.eval(total)
        except RuntimeError as error:
            raise self._lost(error) from error
        ends = np.cumsum([a.size for a in arrays.values()])[:-1].tolist()
        parts = zip(arrays.items(), mx.split(total, ends), strict=True)
        return {name: part.reshape(array.shape) for (name, array), part in parts}

    def from_first(self, value: int) -> int:
        """What rank 0 was called with."""
        return int(self.gather(np.int64(value))[0])

    def wait(self) -> None:
        """Return when all ranks have called it."""
        self.gather(np.int64(0))

    def agree(self, digest: bytes, what: str) -> None:
        """Raises ConfigError if ``digest`` is not the same everywhere."""
        everyones = self.gather(np.frombuffer(digest, np.uint8))
        if others := [r for r, d in enumerate(everyones) if d.tobytes() != digest]:
            names = ", ".join(map(str, others))
            raise ConfigError(f"rank {self.rank} and rank {names} were given different {what}")

    def send_to_first(self, records: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Records of ``size`` bytes: those of all ranks arrive at rank 0, in any order."""
        mine = iter(records)
        at_once = max(1, CHUNK // size)
        while True:
            chunk = [data for _, data in zip(range(at_once), mine, strict=False)]
            counts = self.gather(np.int64(len(chunk)))
            if not counts.any():
                return
            block = b"".join(chunk).ljust(size * int(counts.max()), b"\0")
            blocks = self.gather(np.frombuffer(block, np.uint8))
            if self.rank == 0:
                for count, received in zip(counts, blocks, strict=True):
                    data = received.tobytes()
                    yield from (data[i * size : (i + 1) * size] for i in range(count))

"""An answer as it comes, and how long each part of it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from ..clock import Clock


@dataclass(frozen=True)
class Timings:
    """Seconds until the first token, in four parts, and then of all that follow (``decode``).

    ``encode`` and ``project`` are 0 for images whose tokens are remembered.
    """

    preprocess: float
    encode: float
    project: float
    prefill: float
    decode: float
    prompt_tokens: int
    image_tokens: int
    tokens: int

    @property
    def time_to_first_token(self) -> float:
        """The four parts together."""
        return self.preprocess + self.encode + self.project + self.prefill

    @property
    def tokens_per_second(self) -> float:
        """Of all tokens but the first, which prefill gives; 0 if there is no other."""
        return (self.tokens - 1) / self.decode if self.tokens > 1 else 0.0

    def to_dict(self) -> dict[str, float]:
        """All of it, for JSON."""
        derived = ("time_to_first_token", "tokens_per_second")
        return asdict(self) | {name: getattr(self, name) for name in derived}


class Answer:
    """An answer to iterate over, once, as the text comes; complete when the iteration ends.

    ``text`` is all that came so far. ``finish_reason`` is "" until the end, then "stop" (the
    model ended it, or one of the texts to stop at, which is left out) or "length".
    """

    def __init__(
        self,
        responses: Iterator[Any],
        clock: Clock,
        *,
        prompt_tokens: int,
        image_tokens: int,
        stop: Sequence[str] = (),
    ) -> None:
        self.text = ""
        self.finish_reason = ""
        self._clock = clock
        self._prompt_tokens = prompt_tokens
        self._image_tokens = image_tokens
        self._tokens = 0
        self._chunks = self._run(responses, stop)

    def __iter__(self) -> Iterator[str]:
        return self._chunks

    def __str__(self) -> str:
        return self.text

    def finish(self) -> Answer:
        """Wait for all of it; gives itself."""
        for _ in self:
            pass
        return self

    @property
    def timings(self) -> Timings:
        """Of what came so far."""
        steps = ("preprocess", "encode", "project", "prefill", "decode")
        return Timings(
            **{step: self._clock.seconds.get(step, 0.0) for step in steps},
            prompt_tokens=self._prompt_tokens,
            image_tokens=self._image_tokens,
            tokens=self._tokens,
        )

    def _run(self, responses: Iterator[Any], stop: Sequence[str]) -> Iterator[str]:
        from mlx_lm.generate import TextStateMachine

        machine = TextStateMachine({"text": [(words, None) for words in stop]})
        state = machine.make_state("text")
        with closing(self._timed(responses)) as timed:  # type: ignore[type-var]
            for response in timed:
                state, text, follows = machine.step(state, response.text)
                self.finish_reason = "stop" if follows is None else response.finish_reason or ""
                if follows and self.finish_reason:
                    text += machine.flush(state)[1]  # what might have become a stop
                self.text += text
                if text:
                    yield text
                if follows is None:
                    return

    def _timed(self, responses: Iterator[Any]) -> Iterator[Any]:
        start = time.perf_counter()
        for response in responses:
            now = time.perf_counter()
            self._clock.add("decode" if self._tokens else "prefill", now - start)
            self._tokens = response.generation_tokens
            yield response
            start = time.perf_counter()

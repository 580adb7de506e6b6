"""A batch shared among cores gives what one core gives."""

from __future__ import annotations

import mlx.core as mx
import pytest

import ondevice
from ondevice import cores, create_model, fuse, kernels


@pytest.fixture
def shared(monkeypatch):
    """As on a machine whose BLAS has this many threads."""

    def threads(count: int) -> None:
        monkeypatch.setattr(cores, "_threads", lambda: count)

    return threads


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_rows_are_those_of_one_core(shared, threads, batch):
    shared(threads)
    model = fuse(create_model("shvit_nano", num_classes=10))
    x = mx.random.normal((batch, 64, 64, 3), key=mx.random.key(batch))
    y = ondevice.run(model, x)
    assert y.shape == (batch, 10)
    assert mx.allclose(y, model(x), atol=1e-5)


def test_each_core_gets_its_share_on_a_stream_of_its_own(shared):
    shared(3)
    seen = []

    def model(x):
        seen.append((len(x), mx.default_stream(mx.default_device())))
        return x * 2

    x = mx.arange(8.0).reshape(8, 1)
    y = ondevice.run(model, x)
    if not kernels.is_fast(x):
        assert [n for n, _ in seen] == [8]
        return
    assert [n for n, _ in seen] == [2, 3, 3]
    assert len({str(stream) for _, stream in seen}) == 3
    assert mx.array_equal(y, x * 2)


def test_the_blas_has_its_threads_back_afterwards(shared):
    count = cores._threads
    before = count()

    def fails(x):
        raise ValueError("no")

    shared(2)
    with pytest.raises(ValueError, match="no"):
        ondevice.run(fails, mx.ones((4, 4)))
    assert cores._blas() is None or all(
        p["num_threads"] == before for p in cores._blas().info()
    )


def test_half_precision_stays_whole(shared):
    """MLX's own operations, on one stream: as where there is a GPU."""
    shared(2)
    seen = []
    ondevice.run(lambda x: seen.append(len(x)) or x, mx.ones((4, 4), mx.float16))
    assert seen == [4]

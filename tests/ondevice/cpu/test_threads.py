"""A batch shared among threads gives what one thread gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import mlx.core as mx
import numpy as np
import pytest

import ondevice
from ondevice import create_model, fuse, quantize
from ondevice.cpu import chunks, kernels, threads


@pytest.fixture
def shared(monkeypatch):
    """As on a machine whose BLAS has this many threads."""

    def share(count: int) -> None:
        monkeypatch.setattr(threads, "_threads", lambda: count)

    return share


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_rows_are_those_of_one_thread(shared, count, batch):
    shared(count)
    model = fuse(create_model("shvit_nano", num_classes=10))
    x = mx.random.normal((batch, 64, 64, 3), key=mx.random.key(batch))
    y = ondevice.run(model, x)
    assert y.shape == (batch, 10)
    assert mx.allclose(y, model(x), rtol=0, atol=3e-6)


def test_each_thread_gets_its_share_on_a_stream_of_its_own(shared):
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
    count = threads._threads
    before = count()

    def fails(x):
        raise ValueError("no")

    shared(2)
    with pytest.raises(ValueError, match="no"):
        ondevice.run(fails, mx.ones((4, 4)))
    assert threads._blas() is None or all(
        p["num_threads"] == before for p in threads._blas().info()
    )


def in_threads(task, count):
    """What ``task`` gives in each of so many threads at once."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(task) for _ in range(count)]]


@pytest.mark.parametrize("prepare", [fuse, quantize])
def test_any_thread_may_use_what_another_prepared(shared, prepare):
    shared(2)
    model = prepare(create_model("shvit_nano.cifar10"))
    images = np.random.default_rng(0).random((4, 96, 96, 3), dtype=np.float32)

    def rows():
        return np.asarray(ondevice.run(model, mx.array(images)))

    found = in_threads(rows, 3)
    assert all(np.array_equal(y, rows()) for y in found)


def test_threads_that_share_at_once_give_the_blas_its_threads_back():
    if not (blas := threads._blas()):
        pytest.skip("no threadpoolctl here")

    def counts():
        return {pool["num_threads"] for pool in blas.info()}

    before, first, second = counts(), Event(), Event()

    def enters_first():
        with threads._blas_alone():
            first.set()
            assert second.wait(10)
            assert counts() == {1}

    def leaves_last():
        assert first.wait(10)
        with threads._blas_alone():
            second.set()
            outer.result()
            assert counts() == {1}  # though the one that set it has left
            assert threads._threads() == max(before)

    with ThreadPoolExecutor(2) as pool:
        outer = pool.submit(enters_first)
        pool.submit(leaves_last).result()
    assert counts() == before
    with threads._blas_alone():
        assert counts() == {1}


@pytest.mark.parametrize("form", [kernels.gelu, kernels.softmax])
def test_the_chunks_of_one_image_go_round_the_threads(shared, monkeypatch, form):
    monkeypatch.setattr(chunks, "SIZE", 1 << 12)
    x = mx.random.normal((1, 60, 64, 12), key=mx.random.key(0))
    alone, streams = form(x), []
    stream = mx.stream

    def watched(given):
        streams.append(str(given))
        return stream(given)

    monkeypatch.setattr(mx, "stream", watched)
    shared(3)
    assert mx.array_equal(ondevice.run(form, x), alone)  # to the bit
    if kernels.is_fast(x):
        assert len(set(streams)) == 3
        assert streams == [streams[i % 3] for i in range(12)]


@pytest.mark.parametrize("name", ["fastvit_t8", "mobileclip_s0", "fastvithd"])
def test_one_image_on_all_threads_gives_what_it_gives_on_one(shared, monkeypatch, name):
    monkeypatch.setattr(chunks, "SIZE", 1 << 10)
    monkeypatch.setattr(kernels, "POSITIONS", 50)
    model = fuse(create_model(name))
    x = mx.random.normal((1, 128, 128, 3), key=mx.random.key(0))
    shared(3)
    counts, each_chunk = [], chunks.each_chunk
    monkeypatch.setattr(
        chunks,
        "each_chunk",
        lambda form, parts: counts.append(chunks.thread_count()) or each_chunk(form, parts),
    )
    found = ondevice.run(model.features, x)
    wanted = model.features(x)
    assert mx.allclose(found, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
    assert not kernels.is_fast(x) or counts.count(3) > 20


def test_a_thread_works_on_so_many_pixels_at_once(shared, monkeypatch):
    monkeypatch.setattr(threads, "PIXELS", 32)
    x, seen = mx.random.normal((9, 4, 4, 3)), []
    shared(2)
    assert mx.array_equal(ondevice.run(lambda x: seen.append(len(x)) or x, x), x)
    assert seen == ([1, 2, 1, 2, 1, 2] if kernels.is_fast(x) else [9])


def test_a_position_is_of_the_whole_map_in_its_chunks(shared, monkeypatch):
    """How exact a form is goes by the size of the map, not of the chunk."""
    monkeypatch.setattr(chunks, "SIZE", 1 << 8)
    x, seen = mx.zeros((1, 40, 30, 8)), []

    def form(chunk):
        seen.append((kernels.is_large(chunk, 1200), kernels.is_large(chunk, 1201)))
        return chunk + 1

    shared(2)
    y = ondevice.run(lambda x: kernels.by_place(form, x), x)
    assert mx.array_equal(y, x + 1)
    assert set(seen) == {(True, False)}
    assert not kernels.is_fast(x) or len(seen) > 1


def test_what_one_image_gives_may_be_several_arrays(shared):
    shared(2)
    model = create_model("shvit_nano", num_classes=10)
    maps = ondevice.run(lambda x: model.features(x, stages=(0, 1)), mx.ones((1, 64, 64, 3)))
    assert [m.shape[-1] for m in maps] == [64, 112]


def test_half_precision_stays_whole(shared):
    """MLX's own operations, on one stream: as where there is a GPU."""
    shared(2)
    seen = []
    ondevice.run(lambda x: seen.append(len(x)) or x, mx.ones((4, 4), mx.float16))
    assert seen == [4]


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 64, 64, 3), dtype=np.uint8)


def rows(model):
    return lambda pixels: model(pixels.astype(mx.float32) / 255)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_batch_has_its_own_rows_in_order(shared, count):
    shared(count)
    model = fuse(create_model("shvit_nano", num_classes=10))
    found = list(threads.run_each(rows(model), enumerate(PIXELS)))
    assert [tag for tag, _ in found] == [0, 1, 2, 3]
    for y, pixels in zip((y for _, y in found), PIXELS, strict=True):
        assert np.allclose(y, rows(model)(mx.array(pixels)), rtol=0, atol=3e-6)


def test_values_do_not_depend_on_the_threads(shared, monkeypatch):
    """Not by a bit: a batch is cut by its pixels, here two images at a time.

    Whatever the kernels of the BLAS library, which has one thread for each of ours.
    """
    monkeypatch.setattr(threads, "PIXELS", 2 * 64 * 64)
    model = fuse(create_model("shvit_nano", num_classes=10))
    sizes = []

    def watched(pixels):
        sizes.append(len(pixels))
        return rows(model)(pixels)

    made = []
    for count in (1, 2, 5):
        shared(count)
        made.append(np.stack([y for _, y in threads.run_each(watched, enumerate(PIXELS))]))
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])
    cut = [2, 2, 1] if kernels.is_plain_cpu() else [5]
    assert sorted(sizes) == sorted(3 * len(PIXELS) * cut)


def test_a_gpu_gets_whole_batches_one_ahead(monkeypatch):
    monkeypatch.setattr(kernels, "is_plain_cpu", lambda: False)
    monkeypatch.setattr(threads, "PIXELS", 1)
    started = []

    def model(pixels):
        started.append(len(pixels))
        return pixels.astype(mx.float32).mean(axis=(1, 2, 3))

    found = threads.run_each(model, enumerate(PIXELS))
    assert next(found)[0] == 0
    assert started == [5, 5]  # not cut, however large they are
    rest = list(found)
    assert [tag for tag, _ in rest] == [1, 2, 3]
    assert np.allclose(rest[-1][1], PIXELS[3].mean(axis=(1, 2, 3)))


def test_the_blas_has_its_threads_back_if_it_fails_or_is_left(shared):
    shared(2)
    before = threads._blas() and threads._blas().info()

    def fails(pixels):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(threads.run_each(fails, enumerate(PIXELS)))
    next(threads.run_each(lambda pixels: pixels, enumerate(PIXELS)))  # nobody asks for more
    assert before == (threads._blas() and threads._blas().info())

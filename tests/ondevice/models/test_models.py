"""What every model promises, on small ones: a block a stage, narrow, few pixels."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map_with_path

from ondevice import create_model, fuse, list_models, load_model, model_spec, save_model
from ondevice.errors import ConfigError
from ondevice.models.efficientvit_msra import CascadedGroupAttention, WindowAttention

from ...parity.cases import NAMES, Case, outputs, psnr_db

SIZE = 128


def tiny(name: str, **options) -> nn.Module:
    """A small net of the variant's kind; none of its numbers is the neutral one."""
    config = model_spec(name).config
    small = {"depth": (1,) * len(config.depth), "num_classes": min(config.num_classes, 7)}
    if model_spec(name).family == "fastvit":
        small["embed_dim"] = tuple(32 * 2**i for i in range(len(config.depth)))
    model = create_model(name, **small | options)
    mx.random.seed(0)
    model.update(tree_map_with_path(scrambled, model.parameters()))
    return model


def scrambled(path: str, array: mx.array) -> mx.array:
    if array.ndim > 1 and "attention_biases" not in path:
        return array
    spread = mx.random.uniform(-0.4, 0.4, array.shape)
    return spread + (0 if path.endswith(("bias", "mean", "biases")) else 1)


def image(*, batch: int = 1, height: int = SIZE, width: int = SIZE, seed: int = 0) -> mx.array:
    return mx.random.normal((batch, height, width, 3), key=mx.random.key(seed))


def close(a: mx.array, b: mx.array) -> bool:
    return bool(mx.abs(a - b).max() < 1e-4 * mx.maximum(b.std(), 1e-3 * mx.abs(b).max()))


# The CLIPs are the same networks; other families are in test_zoo.py.
FAMILIES = {"shvit", "efficientvit_msra", "fastvit"}
MODELS = [
    n for n in list_models() if model_spec(n).family in FAMILIES and not model_spec(n).text
]


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(
    params=[
        "shvit_s3",
        "efficientvit_m2",
        "fastvit_t8",
        "fastvit_sa12",
        "fastvit_mci0",
        "fastvit_mci3",
        "fastvithd",
    ]
)
def kind(request):
    """One variant of those that differ in more than numbers."""
    return request.param


def test_every_output_has_the_shape_that_the_config_says(name):
    model, x = tiny(name), image(batch=2, width=2 * SIZE)
    info = model.config.feature_info
    maps = model.features(x, stages=tuple(range(len(info))))
    assert [y.shape for y in maps] == [
        (2, math.ceil(SIZE / i.stride), math.ceil(2 * SIZE / i.stride), i.channels)
        for i in info
    ]
    last, pooled, y = model.features(x), model.pooled(x), model(x)
    assert last.shape[:3] == maps[-1].shape[:3]
    assert pooled.shape == (2, last.shape[3])
    assert y.shape == (
        (2, 7) if "head" in model else (2, math.prod(last.shape[1:3]), last.shape[3])
    )


def test_features_gives_the_stages_asked_for_in_that_order(kind):
    model, x = tiny(kind), image()
    first, last = model.features(x, stages=(0,))[0], model.features(x, stages=(-1,))[0]
    swapped = model.features(x, stages=(-1, 0))
    assert mx.array_equal(swapped[0], last)
    assert mx.array_equal(swapped[1], first)


def test_images_of_a_batch_do_not_touch(kind):
    model, x = tiny(kind), image(batch=2)
    assert close(model(x), mx.concatenate([model(x[:1]), model(x[1:])]))


def test_fuse_keeps_every_output_and_the_model(name):
    model, x = tiny(name), image(batch=2)
    before = outputs(model, x)
    after = outputs(fuse(model), x)
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert close(mx.array(value), mx.array(before[key])), key
    for key, value in outputs(model, x).items():
        assert np.array_equal(value, before[key]), key


def test_fuse_leaves_no_batch_norm_branch_or_layer_scale(kind):
    fused = fuse(tiny(kind))
    names = " ".join(key for key, _ in tree_flatten(fused.parameters()))
    assert not any(part in names for part in ("running_mean", "layer_scale", "conv_kxk", "bn."))


def test_fuse_of_a_fused_model_changes_nothing(kind):
    fused = fuse(tiny(kind))
    again = dict(tree_flatten(fuse(fused).parameters()))
    assert {k: v.shape for k, v in tree_flatten(fused.parameters())} == {
        k: v.shape for k, v in again.items()
    }
    assert all(mx.array_equal(v, again[k]) for k, v in tree_flatten(fused.parameters()))


@pytest.mark.parametrize(("dtype", "least_db"), [(mx.float16, 45), (mx.bfloat16, 30)])
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_half_precision_stays_near(kind, dtype, least_db, prepare):
    model, x = prepare(tiny(kind)), image(batch=2)
    wanted = np.array(model(x))
    model.set_dtype(dtype)
    found = model(x.astype(dtype))
    assert found.dtype == dtype
    assert psnr_db(np.array(found.astype(mx.float32)), wanted) >= least_db


def test_fuse_keeps_the_type_of_the_parameters(kind):
    model = tiny(kind)
    model.set_dtype(mx.float16)
    assert {v.dtype for _, v in tree_flatten(fuse(model).parameters())} == {mx.float16}


@pytest.mark.parametrize(
    "shape",
    [(1, 100, 128, 3), (1, 128, 0, 3), (128, 128, 3), (1, 3, 128, 128), (1, 128, 128, 4)],
)
def test_an_input_that_does_not_fit_is_refused_in_one_line(kind, shape):
    with pytest.raises(ConfigError, match=r"^an input of shape .* multiples of \d+$"):
        tiny(kind)(mx.zeros(shape))


def test_a_stage_that_is_not_there_is_refused(kind):
    with pytest.raises(ConfigError, match=r"^stages \(9,\) of a model with stages 0 to \d$"):
        tiny(kind).features(image(), stages=(9,))


def test_a_saved_model_is_the_same(kind, tmp_path):
    model, x = tiny(kind), image()
    assert mx.array_equal(load_model(save_model(model, tmp_path / "m"))(x), model(x))


def test_without_classes_a_model_gives_its_embedding(kind):
    model, x = tiny(kind, num_classes=0), image()
    if not getattr(model.config, "tokens", False):
        assert mx.array_equal(model(x), model.pooled(x))


@pytest.mark.parametrize("name", [n for n in MODELS if n != "shvit_nano"])  # it is ours
def test_the_size_is_the_published_one(name):
    spec = model_spec(name)
    published = {"fastvithd": 122_710_000}.get(name, spec.params)  # 125.1 M with a projection
    merged = {"inference_mode": True} if "mci" in name else {}  # how timm counts these
    model = create_model(name, **merged)
    model.train()
    count = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    assert count == pytest.approx(published, rel=0.003)


def test_every_checkpoint_says_where_it_is_and_what_it_may_be_used_for(name):
    for checkpoint in model_spec(name).checkpoints:
        assert checkpoint.license in {"mit", "fastvit-license", "apple-amlr"}
        assert bool(checkpoint.repo) == (name != "shvit_nano")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [n for n in NAMES if n in {"shvit_s1-224", "efficientvit_m0-224", "fastvit_t8-256"}]
)
@pytest.mark.parametrize(("dtype", "least_db"), [(mx.float16, 45), (mx.bfloat16, 30)])
def test_half_precision_stays_near_at_full_size(case, dtype, least_db):
    case = Case(case)
    found = fuse(case.create())
    found.set_dtype(dtype)
    logits = np.array(found(case.input.astype(dtype)[:1]).astype(mx.float32))
    assert psnr_db(logits, case.arrays["logits"][:1]) >= least_db


def window_attention(window: int) -> WindowAttention:
    mx.random.seed(1)
    attn = CascadedGroupAttention(32, 16, num_heads=2, window=window, kernels=(5, 3))
    attn.attention_biases = mx.random.normal(attn.attention_biases.shape)
    attn.eval()
    return WindowAttention(attn)


def test_a_large_map_is_attended_to_window_by_window():
    module, x = window_attention(7), mx.random.normal((2, 14, 21, 32))
    whole = module(x)
    for i, j in np.ndindex(2, 3):
        window = np.s_[:, 7 * i : 7 * i + 7, 7 * j : 7 * j + 7]
        assert close(whole[window], module(x[window]))


def test_a_map_that_windows_do_not_fill_is_padded_with_zeros():
    module, x = window_attention(7), mx.random.normal((1, 10, 7, 32))
    padded = mx.pad(x, [(0, 0), (0, 4), (0, 0), (0, 0)])
    assert close(module(x), module(padded)[:, :10])


def test_a_bias_belongs_to_a_distance_in_y_and_x():
    attn = window_attention(4).attn
    biases = attn.biases()[1]
    assert biases.shape == (16, 16)
    assert biases[0, 5] == biases[5, 0] == biases[1, 4] == attn.attention_biases[1, 5]
    assert biases[3, 9] == attn.attention_biases[1, 2 * 4 + 2]


def test_windows_follow_the_size_of_the_image():
    windows = [tiny("efficientvit_m0", img_size=n).config.windows for n in (112, 224, 512)]
    assert windows == [(7, 4, 2), (7, 7, 4), (7, 7, 7)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((1, 96, 96, 3), np.float32), "ndarray"),
        (mx.zeros((1, 96, 96, 3), mx.uint8), "mlx.core.uint8"),
        (None, "NoneType"),
        ("photo.jpg", "str"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    "name", ["shvit_nano", "light_detr_shvit_nano", "light_fpn_shvit_nano"]
)
def test_what_is_no_input_is_told_how_to_become_one(name, given, said):
    with pytest.raises(ConfigError, match=f"^an input of {said}: .*ondevice.preprocess"):
        create_model(name)(given)


def test_a_batch_of_none_is_refused():
    with pytest.raises(ConfigError, match=r"an input of shape \(0, 96, 96, 3\)"):
        create_model("shvit_nano")(mx.zeros((0, 96, 96, 3)))


@pytest.mark.parametrize("stages", [1, "0", ["0"], (0.5,), (None,)], ids=repr)
def test_stages_are_numbers_in_a_list(stages):
    with pytest.raises(ConfigError, match="of a model with stages 0 to 2"):
        create_model("shvit_nano").features(mx.zeros((1, 96, 96, 3)), stages=stages)

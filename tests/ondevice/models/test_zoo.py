"""Every variant beside what is published; kinds without a golden case, on few blocks."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map_with_path
from PIL import Image

from ondevice import create_model, fuse, list_models, model_spec
from ondevice.errors import ConfigError
from ondevice.nn.vision_transformer import resized

from ...parity import live
from ...parity.cases import outputs
from ...support.names import image_encoders
from .test_models import FAMILIES, close, image, scrambled

OURS = {"light_detr", "light_fpn"}  # families of which nothing is published but here
VARIANTS = [
    n
    for n in list_models()
    if model_spec(n).family not in FAMILIES | OURS and not model_spec(n).text
]
WITHOUT = {"vit", "poolformerv2", "cct", "retinanet"}  # families that no golden case is of
ONE_EACH = {"depth": (1, 1, 1, 1)}
# By variant, how it is made small: as many kinds of blocks as there are, one of each.
KINDS = {
    "cct_2_3x2_32": {},
    "cct_7_3x1_32_sine": {"depth": 2},
    "cct_14_7x2_224": {"depth": 1},
    "convnext_large_mlp": {**ONE_EACH, "embed_dim": (32, 32, 64, 64), "hidden": 48},
    "convnext_nano_ols": ONE_EACH,
    "convnext_tiny_hnf": ONE_EACH,
    "convnext_zepto_rms_ols": ONE_EACH,
    "convnext_atto_rms": ONE_EACH,
    "davit_base_fl": ONE_EACH | {"embed_dim": (32, 32, 64, 64)},
    "davit_small": ONE_EACH,
    "edgenext_base": {"depth": (1, 2, 2, 2)},
    "edgenext_small_rw": {"depth": (1, 2, 2, 2)},
    "efficientformer_l3": {"depth": (1, 1, 1, 2), "attention_blocks": 1},
    "efficientformerv2_s2": {**ONE_EACH, "attention_blocks": 1},
    "iformer_h": {
        "depth": (1, 1, 4, 3),
        "attention": (0, 0, 1, 1),
        "embed_dim": (16, 32, 48, 64),
    },
    "iformer_t": {"depth": (1, 1, 4, 3), "attention": (0, 0, 1, 1)},
    "iformer_m_distilled": {"depth": (1, 1, 4, 3), "attention": (0, 0, 1, 1)},
    "mobilenetv4_conv_aa_medium": {},
    "mobilenetv4_conv_blur_medium": {},
    "mobilenetv4_conv_small_035": {},
    "mobilenetv4_hybrid_large_075": {},
    "mobileone_s4": {**ONE_EACH, "squeeze": (0, 0, 1, 1)},
    "mobilevit_xs": {**ONE_EACH, "depth": (1,) * 5, "transformer_depth": (1, 1, 1)},
    "mobilevitv2_075": {**ONE_EACH, "depth": (1,) * 5, "transformer_depth": (1, 1, 1)},
    "nextvit_base": {"depth": (1, 1, 5, 1)},
    "poolformerv2_s12": ONE_EACH,
    "pvt_v2_b2_li": ONE_EACH,
    "repvit_m1": ONE_EACH,
    "starnet_s050": ONE_EACH,
    "swiftformer_s": {"depth": (2, 2, 2, 2)},
    "swin_s3_tiny_224": {"depth": (2, 2, 2, 2)},
    "twins_pcpvt_base": {"depth": (2, 1, 1, 1)},
    "twins_svt_small": {"depth": (2, 2, 2, 2)},
    "visformer_small": {"depth": (1, 1, 1)},
    "vit_base_patch16_siglip_gap_224": {"depth": 1, "embed_dim": 48, "heads": 3},
    "vit_base_patch32_siglip_256": {"depth": 1, "embed_dim": 48, "heads": 3},
    "vit_small_patch14_dinov2": {"depth": 1, "embed_dim": 48, "heads": 3},
    "vit_small_patch14_reg4_dinov2": {"depth": 1, "embed_dim": 48, "heads": 3},
    "vitamin_small_224": {"depth": 1, "conv_dim": (8, 16), "embed_dim": 48, "heads": 3},
    "vitamin_xlarge_256": {"depth": 1, "conv_dim": (8, 16), "embed_dim": 48, "heads": 3},
    "tiny_vit_21m_384": {**ONE_EACH, "windows": (7, 7, 3, 2)},
}


@pytest.fixture(params=KINDS)
def kind(request):
    model = create_model(request.param, num_classes=7, **KINDS[request.param])
    mx.random.seed(0)
    model.update(tree_map_with_path(scrambled, model.parameters()))
    return model


def fitting(model, batch: int = 1) -> mx.array:
    """A batch of images as small as the model takes."""
    side = model.config.only_size or -(-96 // model.config.stride) * model.config.stride
    return image(batch=batch, height=side, width=side)


def test_maps_have_the_shapes_that_the_config_says(kind):
    x = fitting(kind)
    found, info = kind.maps(x), kind.config.feature_info
    sides = [math.ceil(x.shape[1] / i.stride) for i in info]
    if kind.info.model.startswith("mobilevitv2"):
        sides = [side + side % 2 if i > 1 else side for i, side in enumerate(sides)]
    assert [y.shape[1:] for y in found] == [
        (side, side, i.channels) for side, i in zip(sides, info, strict=True)
    ]
    assert kind(x).shape == (1, 7)


def test_fuse_keeps_every_output(kind):
    x = fitting(kind)
    before, after = outputs(kind, x), outputs(fuse(fuse(kind)), x)
    for key, value in after.items():
        assert close(mx.array(value), mx.array(before[key])), key


def test_images_of_a_batch_do_not_touch(kind):
    x = fitting(kind, batch=2)
    x = mx.concatenate([x[:1], 2 * x[1:]])
    together, first, second = (outputs(kind, y) for y in (x, x[:1], x[1:]))
    assert not close(mx.array(first["stage_0"]), mx.array(second["stage_0"]))
    for key, value in together.items():
        apart = np.concatenate([first[key], second[key]])
        assert close(mx.array(value), mx.array(apart)), key


@pytest.mark.parametrize("name", VARIANTS)
def test_the_size_is_the_published_one(name):
    spec = model_spec(name)
    model = spec.build(spec.config)
    model.train()
    count = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    assert count == pytest.approx(spec.params, rel=0.003)


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_have_a_place_and_a_licence(name):
    for checkpoint in model_spec(name).checkpoints:
        assert checkpoint.license != "unknown"
        assert checkpoint.source.startswith("https://")
        assert checkpoint.url or checkpoint.repo.count("/") == 1


@pytest.mark.parametrize(
    "name", ["efficientformer_l1", "efficientformerv2_s0", "swin_s3_tiny_224", "visformer_tiny"]
)
def test_another_size_than_the_only_one_is_refused(name):
    with pytest.raises(
        ConfigError, match=r"^an image of 192 x 192 px: this model takes 224 x 224$"
    ):
        create_model(name)(mx.zeros((1, 192, 192, 3)))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (50, 44), (37, 12)])
def test_positions_are_resized_as_pillow_resizes(height, width):
    table = np.random.default_rng(0).normal(size=(37, 37)).astype(np.float32)
    wanted = Image.fromarray(table).resize((width, height), Image.Resampling.BICUBIC)
    found = resized(mx.array(table.reshape(-1, 1)), 37, height, width)
    assert np.abs(np.array(found).reshape(height, width) - np.array(wanted)).max() < 1e-5


def test_each_family_has_a_golden_case():
    from ...parity.cases import NAMES, Case
    from ...parity.dense_cases import NAMES as DENSE

    of_cases = {model_spec(Case(name).model).family for name in NAMES}
    stems = tuple(name.rpartition("-")[0] for name in DENSE)
    of_cases |= {model_spec(name).family for name in VARIANTS if name.startswith(stems)}
    assert of_cases >= {model_spec(name).family for name in VARIANTS} - WITHOUT


def test_a_live_timm_is_asked_for_every_family_at_sizes_that_are_taken():
    """The comparison itself needs torch; what it would compare does not."""
    families = {model_spec(name).family for name in image_encoders()}
    asked = {model_spec(name).family for name, *_ in live.cases()}
    assert asked == families - live.OTHER_FAMILIES
    for name, size, options in live.cases():
        config = model_spec(name).contract(**options).config
        assert size % config.stride == 0
        assert config.only_size in (None, size)

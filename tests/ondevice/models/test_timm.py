"""Every variant beside a live timm. Needs the extra ``parity``, and timm and torchvision."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ondevice import create_model, fuse

from ...parity import live, published, torchvision_ops, weightgen
from ...parity.cases import outputs

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # timm's and torch's own
]

TOLERANCE = 1e-4  # of the spread of an output ...
TIMES_TORCH = 4  # ... or this often the error of torch's float32, where attention amplifies it


@pytest.fixture(scope="module")
def timm():
    torchvision_ops.declare()
    timm = pytest.importorskip("timm")
    timm.layers.set_fused_attn(False)
    return timm


def reference(timm, name: str, size: int, **options):
    """timm's model with hard weights: norms fit what arrives, no scale or shift is neutral."""
    model = timm.create_model(name, **options)
    own = model.state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items() if v.is_floating_point()}
    weights = weightgen.state_dict(1, shapes, {})
    hard = {k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()}
    model.load_state_dict(own | hard)  # what counts, or says where, stays
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(weightgen.image_batch(2, 2, size)))
    return model.eval()


def run(model, x: np.ndarray, stages: int) -> dict[str, np.ndarray]:
    with torch.no_grad():
        last, maps = model.forward_intermediates(torch.from_numpy(x))
        maps = maps if stages > 1 else maps[-1:]  # of a plain transformer, each block's
        found = {f"stage_{i}": y.numpy() for i, y in enumerate(maps)}
        found["pooled"] = model.forward_head(last, pre_logits=True).numpy()
        found["logits"] = model.forward_head(last).numpy()
    return found


def weights_of(model, prefix: str = "") -> dict[str, mx.array]:
    return {prefix + k: mx.array(v.numpy()) for k, v in model.state_dict().items()}


def assert_same(ours, theirs, size: int) -> None:
    """Both forms of our model are as near to torch's float64 as its float32 is."""
    x = weightgen.image_batch(3, 1, size)
    stages = len(ours.config.feature_info)
    single, double = (
        run(theirs, x, stages),
        run(theirs.double(), x.astype(np.float64), stages),
    )
    for form in (ours, fuse(ours)):
        found = outputs(form, mx.array(x.transpose(0, 2, 3, 1)))
        del found["features"]  # in several orders there
        assert found.keys() <= single.keys()
        for name in found:
            spread = double[name].std()
            noise = np.abs(single[name] - double[name]).max() / spread
            error = np.abs(found[name] - double[name]).max() / spread
            assert error < max(TOLERANCE, TIMES_TORCH * noise), name


@pytest.mark.parametrize(("name", "size", "options"), live.cases())
def test_every_variant_gives_the_outputs_of_timm(timm, name, size, options):
    options = {"num_classes": 10, **options}
    theirs = reference(timm, name, size, **options)
    assert_same(create_model(name, weights=weights_of(theirs), **options), theirs, size)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci2"])
def test_weights_merged_by_timm_are_recognised(timm, name):
    theirs = reference(timm, name, 128, num_classes=10)
    merged = weights_of(timm.utils.reparameterize_model(theirs))
    ours = create_model(name, weights=merged, num_classes=10)
    assert ours.config.inference_mode
    assert_same(ours, theirs, 128)


def test_the_encoder_of_fastvlm_is_mci3_without_its_projection(timm):
    theirs = reference(timm, "fastvit_mci3", 128, num_classes=0, inference_mode=True)
    prefix = "model.vision_tower.timm_model."  # as transformers writes it
    assert_same(create_model("fastvithd", weights=weights_of(theirs, prefix)), theirs, 128)


def test_the_golden_list_of_checkpoints_is_that_of_this_timm(timm):
    assert published.read_timm(Path(timm.__file__).parent) == published.golden()["timm"]

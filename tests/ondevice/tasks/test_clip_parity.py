"""MobileCLIP's encoders beside PyTorch's: golden outputs, and a live torch if there is one."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from ondevice import create_model, fuse

from ...parity.cases import OPERATIONS
from ...parity.clip_cases import GOLDEN, golden, tokens, weights
from ...parity.weightgen import image_batch

GOLDEN_TOLERANCE = 1e-5  # of the spread of an output; 4e-6 with any kernels of OpenBLAS
TOLERANCE = 1e-4  # of a live torch's, where more variants are tried


def error(found: mx.array, wanted: np.ndarray) -> float:
    return float(np.abs(np.array(found) - wanted).max() / wanted.std())


def arrays(shapes) -> dict[str, mx.array]:
    return {key: mx.array(value) for key, value in weights(shapes).items()}


@pytest.mark.slow
@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize("name", [n for n in GOLDEN if n.endswith("_text")])
def test_text_encoders_give_the_vectors_of_pytorch(name, operations):
    meta, wanted = golden(name)
    model = create_model(name, weights=arrays(meta["shapes"]))
    ids = mx.array(tokens())
    for form in (model, fuse(model)):
        with OPERATIONS[operations]():
            assert error(form(ids), wanted["rows"]) < GOLDEN_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("operations", OPERATIONS)
def test_the_vision_transformer_gives_the_outputs_of_timm(operations):
    meta, wanted = golden("vit_base_mci_224")
    model = create_model("vit_base_mci_224", weights=arrays(meta["shapes"]))
    x = mx.array(image_batch(7, 2, 224).transpose(0, 2, 3, 1))
    for form in (model, fuse(model)):
        with OPERATIONS[operations]():
            found = form.features(x).reshape(2, 196, -1)[..., :8]
            assert error(found, wanted["map"]) < GOLDEN_TOLERANCE
            pooled = form.pooled(x)
            assert error(pooled, wanted["pooled"]) < GOLDEN_TOLERANCE
            assert error(form.head(pooled), wanted["logits"]) < GOLDEN_TOLERANCE


@pytest.mark.slow
def test_the_image_encoder_of_a_clip_is_that_network_and_a_unit_vector():
    meta, wanted = golden("vit_base_mci_224")
    file = {f"visual.trunk.{k}": v for k, v in arrays(meta["shapes"]).items()}
    model = create_model("mobileclip_b", weights={**file, "logit_scale": mx.array(4.6)})
    x = mx.array(image_batch(7, 1, 224).transpose(0, 2, 3, 1))
    logits = wanted["logits"][:1]
    assert error(model(x), logits / np.linalg.norm(logits)) < GOLDEN_TOLERANCE


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's and timm's own
@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip_s2", "mobileclip2_s3"])
def test_text_encoders_give_the_vectors_of_a_live_pytorch(name):
    pytest.importorskip("torch")
    if name != "mobileclip_s0":
        pytest.importorskip("open_clip")
    from ...parity import clip_torch

    shapes, wanted = clip_torch.run(f"{name}_text")
    model = create_model(f"{name}_text", weights=arrays(shapes))
    assert error(model(mx.array(tokens())), wanted["rows"]) < TOLERANCE

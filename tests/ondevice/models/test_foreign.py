"""Other people's packages: what PyTorch and coremltools make of timm's models."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from converters import load_package
from converters.coreml.reader import quiet
from tests.parity import torchvision_ops
from tests.support.mil import ct

NAMES = (
    "shvit_s1",
    "efficientvit_m0",
    "fastvit_t8",
    "resnet18",
    "mobilenetv3_small_100",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
)


@pytest.fixture(scope="module")
def torch():
    """PyTorch on one thread, beside a timm that can be imported."""
    torch = pytest.importorskip("torch")
    torchvision_ops.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("timm")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its idle threads spin, and slow NumPy's down tenfold
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def patched_cast(monkeypatch):
    """coremltools 9.0 calls int() on one-element arrays, which NumPy 2.4 refuses."""
    with quiet():
        from coremltools.converters.mil.frontend.torch import ops
    cast = ops._cast

    def cast_scalars(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        (x,) = ops._get_inputs(context, node, expected=1)
        if x.can_be_folded_to_const():
            value = dtype(np.asarray(x.val).item())
            context.add(ops.mb.const(val=value, name=node.name), node.name)
        else:
            cast(context, node, dtype, dtype_name)

    monkeypatch.setattr(ops, "_cast", cast_scalars)


def randomize(torch: Any, model: Any) -> None:
    """Batch norms that fold wrongly must show."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_timm_model_through_pytorch_gives_pytorchs_numbers(
    name, torch, patched_cast, tmp_path
):
    with quiet():
        import timm

        torch.manual_seed(0)
        model = timm.create_model(name).eval()
        randomize(torch, model)
        size = model.default_cfg["input_size"][-1]
        x = torch.randn(1, 3, size, size)
        with torch.no_grad():
            wanted = model(x).numpy()
            traced = torch.jit.trace(model, x)
        ct.convert(
            traced,
            inputs=[ct.TensorType(name="image", shape=x.shape)],
            compute_precision=ct.precision.FLOAT32,
        ).save(str(tmp_path / "x.mlpackage"))
    (given,) = load_package(tmp_path / "x.mlpackage").predict({"image": x.numpy()}).values()
    # float32 against float32 of another library
    assert np.abs(given - wanted).max() <= 1e-5 * wanted.std()

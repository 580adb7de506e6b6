"""The numbers of timm, from golden cases (see parity/README.md) and from a live timm."""

from __future__ import annotations

from collections import defaultdict

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, fuse, model_spec
from ondevice.cpu import kernels

from ...parity.cases import NAMES, OPERATIONS, Case, outputs
from ...parity.compact import class_step, positions
from ...parity.merged import merged

# Of the spread, as the README has it; torch's float32 is up to 6e-5 from its float64, and ours
# from torch's in any form and with any kernels of OpenBLAS.
TOLERANCE = defaultdict(lambda: 1e-4, shvit=6e-5)
# MLX's own norm of a whole map adds up its 260,000 values one after the other on a CPU, and
# DaViT's scores are MLX's own sums over 3,136 positions, with spreads of 200 before a softmax.
WHOLE_MAPS = {
    ("davit", "as on a Mac"): 2e-4,
    ("mobilevitv2", "as on a Mac"): 7e-4,
    ("poolformer", "as on a Mac"): 2e-4,
}


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def model(case):
    return case.create()


@pytest.mark.slow
@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_every_output_is_that_of_timm(case, model, prepare, operations):
    images = case.meta["batch"] if case.meta["size"] == 224 else 1  # the larger are slow
    with OPERATIONS[operations]():
        found = outputs(prepare(model), case.input[:images])
    errors = {name: error(case, name, found[name]) for name in found if name in case.arrays}
    wanted = {f"stage_{i}" for i in range(len(model.config.feature_info))} | {"features"}
    assert errors.keys() >= wanted
    family = model_spec(case.model).family
    limit = WHOLE_MAPS.get((family, operations), TOLERANCE[family])
    assert all(error < limit for error in errors.values()), errors


def test_the_operations_of_a_mac_are_others():
    """Else one of the forms above is run twice. On a Mac it is."""
    x = mx.zeros((1, 8, 8, 3))
    with OPERATIONS["as here"]():
        assert kernels.is_fast(x) == kernels.is_plain_cpu()
    with OPERATIONS["as on a Mac"]():
        assert not kernels.is_fast(x)


def error(case: Case, name: str, found: np.ndarray) -> float:
    """Largest error of the kept values that ``found`` has, over the spread of the output."""
    wanted = case.arrays[name]
    if name in ("logits", "pooled"):
        found = found[:, :: class_step(found)]
        return np.abs(found - wanted[: len(found)]).max() / wanted.std()
    images, channels = case.meta.get("kept", {}).get(name, (case.meta["batch"], None))
    found = found[:, :channels]
    index = positions(found.size // len(found) * images)
    inside = index < found.size
    assert inside.sum() > 100
    wanted, spread = wanted[inside], case.arrays[f"{name}.std"]
    if name == "features":  # values of fifty times the spread have errors in proportion
        spread = spread + np.abs(wanted)
    return (np.abs(found.ravel()[index[inside]] - wanted) / spread).max()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fastvit_t8-256", "fastvit_sa12-256", "fastvit_mci2-256"])
def test_merged_weights_are_recognised_and_give_the_logits_of_timm(case):
    case = Case(case)
    weights = {k: mx.array(v) for k, v in merged(case.weights()).items()}
    assert not any("conv_kxk" in key or "pos_enc" in key for key in weights)
    model = create_model(case.model, weights=weights, num_classes=case.meta["num_classes"])
    assert model.config.inference_mode
    for form in (model, fuse(model)):
        found = outputs(form, case.input[:1])
        assert error(case, "logits", found["logits"]) < TOLERANCE["fastvit"]
        assert error(case, "pooled", found["pooled"]) < TOLERANCE["fastvit"]


def test_a_file_gives_the_same_model_as_its_arrays(tmp_path):
    case = Case("fastvit_t8-256")
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), case.weights(), {"format": "pt"})
    from_file = dict(tree_flatten(create_model(case.model, weights=path).parameters()))
    for name, array in tree_flatten(case.create().parameters()):
        assert mx.array_equal(from_file[name], array), name

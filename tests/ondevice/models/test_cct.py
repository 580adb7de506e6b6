"""CCT beside NumPy, from files with the authors' names."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

import ondevice
from ondevice import create_model, fuse, model_spec
from ondevice.models.cct import sines
from ondevice.weights.folder import read_info

from ...parity import cct_numpy
from ...parity.weightgen import image_batch
from ...support import torchfiles

# One for each kernel, number of convolutions, width, and kind of positions.
DEPTH = {
    "cct_2_3x2_32": 2,
    "cct_6_3x1_32": 6,
    "cct_7_3x1_32_sine_c100": 7,
    "cct_7_7x2_224_sine": 7,
    "cct_14_7x2_224": 3,
    "cct_14_7x2_384_fl": 2,
}


@pytest.mark.parametrize("name", DEPTH)
def test_logits_are_those_of_numpy(name):
    config = replace(model_spec(name).config, depth=DEPTH[name])
    w = cct_numpy.weights(config)
    x = image_batch(0, 1, config.img_size)
    arrays = {k: mx.array(v) for k, v in w.items()}
    model = create_model(name, weights=arrays, depth=DEPTH[name])
    wanted = cct_numpy.logits(w, x, config)
    assert wanted.std() > 0.1
    for form in (model, fuse(model)):
        found = np.array(form(mx.array(x.transpose(0, 2, 3, 1))))
        assert np.abs(found - wanted).max() / wanted.std() < 1e-5


def test_positions_that_are_not_learned_are_sines_and_stay_so():
    wanted = cct_numpy.sines(64, 128)
    assert np.abs(np.array(sines(64, 128)) - wanted).max() < 1e-5
    model = create_model("cct_2_3x2_32_sine").train()
    assert np.abs(np.array(model.pos_embed) - wanted).max() < 1e-5
    assert "pos_embed" not in model.trainable_parameters()
    assert "pos_embed" in create_model("cct_2_3x2_32").train().trainable_parameters()


def test_a_file_of_the_authors_is_imported(ondevice_, tmp_path):
    name = "cct_2_3x2_32"
    w = cct_numpy.weights(model_spec(name).config)
    path = tmp_path / "cct.pth"
    path.write_bytes(torchfiles.weights(w))
    out = tmp_path / "out"
    status, _, err = ondevice_("import", path, "--model", name, "--out", out)
    assert (status, err.count("error")) == (0, 0)
    x = image_batch(0, 1, 32)
    found = np.array(ondevice.load(out)(mx.array(x.transpose(0, 2, 3, 1))))
    wanted = cct_numpy.logits(w, x, model_spec(name).config)
    assert np.abs(found - wanted).max() / wanted.std() < 1e-5
    assert read_info(out).preprocess.mean == (0.4914, 0.4822, 0.4465)


def test_weights_that_no_hub_has_are_one_line(ondevice_, tmp_path):
    args = ("--model", "cct_7_3x1_32")
    status, out, err = ondevice_("classify", tmp_path / "a.png", *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    said = "`ondevice import FILE --model cct_7_3x1_32 --out FOLDER`"
    assert (
        f"no weights of cct_7_3x1_32 are on the hub; a file of them becomes a model by {said}"
        in err
    )

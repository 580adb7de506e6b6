"""Both encoders of a SigLIP as Core ML packages."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from converters import export, load_package, verify
from converters.compress.apply import LEAST
from ondevice.models.clip_text import example_tokens

from ...support import siglips

NAMES = ["siglip_base_patch16_224", "siglip2_base_patch32_256"]


def texts(model, count=4):
    return [np.array(row)[None] for row in example_tokens(model.config, texts=count)]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_encoder_computes_the_same_in_its_package(tmp_path, name):
    _, model = siglips.towers(name)
    for precision in ("float32", "float16"):
        path = export(model, tmp_path / f"{precision}.mlpackage", precision=precision)
        package = load_package(path)
        (given,) = package.inputs.values()
        assert (given.name, given.shape, given.dtype) == ("text", (1, 64), "int32")
        (found,) = verify(model, package, texts(model)).steps[0].comparisons
        assert found.relative_error < 1e-5 if precision == "float32" else found.psnr_db > 55
    ops = Counter(package.operations)
    assert (ops["gather"], ops["gelu"], ops["layer_norm"]) == (1, 3, 7)
    assert ops["transpose"] <= 1


@pytest.mark.parametrize("part", [0, 1], ids=["image", "text"])
@pytest.mark.parametrize("recipe", ["int8", "palette4"])
def test_either_encoder_is_compressed_whole(tmp_path, part, recipe):
    model = siglips.towers(NAMES[0])[part]
    found = []
    options = {"target": "iOS18", "recipe": recipe, "account": found.append}
    export(model, tmp_path / "m.mlpackage", **options)
    (account,) = found
    large = [row for row in account.rows if row.size >= LEAST]
    assert len(large) > 10
    assert all(row.path in account.forms for row in large)


def test_the_commands_export_and_verify_either_encoder(ondevice_, tmp_path, monkeypatch):
    siglips.shrink(monkeypatch, NAMES[0])
    folder = tmp_path / "out"
    args = (siglips.write(tmp_path, NAMES[0]), "--model", NAMES[0], "--out", folder)
    assert ondevice_("import", *args)[0] == 0
    for part, model in (("image", folder), ("text", folder / "text")):
        path = tmp_path / f"{part}.mlpackage"
        status, out, _ = ondevice_("export", model, "--out", path, "--json")
        report = json.loads(out)
        assert (status, report["inputs"], report["outputs"]) == (0, part, "embedding")
        assert report["license"] == "apache-2.0"
        status, out, _ = ondevice_("verify", path, "--model", model, "--json", "--no-baselines")
        assert (status, json.loads(out)["passed"]) == (0, True)

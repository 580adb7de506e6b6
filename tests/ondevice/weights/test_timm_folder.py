"""A folder as timm saves it is a model, and what its config.json says is taken as it is."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from converters import export, load_package
from ondevice import create_model, load_model, save_model
from ondevice.config import Preprocess
from ondevice.errors import ConfigError, WeightsError
from ondevice.image.preprocess import resize_and_crop
from ondevice.tasks.import_weights import import_weights
from ondevice.weights.folder import model_info
from ondevice.weights.safetensors import write_safetensors
from tests.ondevice.weights.test_prefixes import torch_file

# As timm 1.0 writes it for a fine-tune.
CONFIG = {
    "architecture": "shvit_s1",
    "num_classes": 3,
    "num_features": 320,
    "global_pool": "avg",
    "label_names": ["cat", "dog", "owl"],
    "pretrained_cfg": {
        "tag": "in1k",
        "custom_load": False,
        "input_size": [3, 192, 192],
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.4, 0.5, 0.6],
        "num_classes": 3,
        "pool_size": [4, 4],
        "first_conv": "patch_embed.0.c",
        "classifier": "head.l",
    },
}
CONTRACT = Preprocess(
    size=192,
    crop_pct=0.9,
    crop_mode="squash",
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.4, 0.5, 0.6),
)
FLAT = {  # as timm 0.8 wrote it
    **{k: v for k, v in CONFIG["pretrained_cfg"].items() if k != "tag"},
    "architecture": "shvit_s1",
    "num_features": 320,
    "labels": ["cat", "dog", "owl"],
}


def changed(inner=None, **outer):
    return {
        **CONFIG,
        "pretrained_cfg": {**CONFIG["pretrained_cfg"], **(inner or {})},
        **outer,
    }


def torch_arrays(model):
    arrays = dict(tree_flatten(model.parameters()))
    return {k: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for k, a in arrays.items()}


@pytest.fixture(scope="module")
def tuned():
    """Weights of three classes."""
    return create_model("shvit_s1", num_classes=3)


@pytest.fixture
def folder(tmp_path, tuned):
    return write(tmp_path / "tuned", CONFIG, tuned)


def write(folder, config, model, file="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    arrays = torch_arrays(model)
    if file.endswith(".safetensors"):
        write_safetensors(folder / file, arrays, {"format": "pt"})
    else:
        (folder / file).write_bytes(torch_file(arrays))
    return folder


# --- as it is


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("config", [CONFIG, FLAT], ids=["new", "old"])
def test_a_folder_of_timms_is_a_model(config, file, tuned, tmp_path):
    model = create_model(str(write(tmp_path / "x", config, tuned, file)))
    assert model.info.preprocess == CONTRACT
    assert model.info.labels == ("cat", "dog", "owl")
    assert (model.info.name, model.info.license) == ("shvit_s1", "mit")
    assert (model.info.source, model.info.top1) == ("", None)
    x = mx.random.normal((1, 64, 64, 3), key=mx.random.key(0))
    assert mx.array_equal(model(x), tuned(x))
    assert model_info(str(tmp_path / "x")) == model.info


def test_so_is_one_that_transformers_saved_of_it(tuned, tmp_path):
    folder = write(tmp_path / "x", changed(model_type="timm_wrapper"), tuned)
    arrays = {f"timm_model.{k}": v for k, v in torch_arrays(tuned).items()}
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    assert create_model(str(folder)).info.labels == ("cat", "dog", "owl")


def test_it_is_saved_in_our_form(folder, tmp_path):
    model = create_model(str(folder))
    assert load_model(save_model(model, tmp_path / "ours")).info == model.info


def test_its_package_has_its_contract_and_labels(folder, tmp_path):
    package = load_package(export(create_model(str(folder)), tmp_path / "x.mlpackage"))
    contract = json.loads(package.metadata["ondevice.preprocess"])
    assert contract == json.loads(json.dumps(CONTRACT.to_dict()))
    assert package.labels == ("cat", "dog", "owl")
    assert package.metadata["ondevice.model"] == "shvit_s1"
    assert package.metadata["author"] == "ondevice"


@pytest.mark.parametrize("command", ["show", "classify"])
def test_the_commands_take_it(command, folder, ondevice_, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "x.png")
    args = {"show": (folder,), "classify": (tmp_path / "x.png", "--model", folder)}[command]
    status, out, err = ondevice_(command, *args, "--json")
    assert (status, err) == (0, "")
    assert '"cat"' in out


@pytest.mark.parametrize(
    ("mode", "corner"),
    [("border", (128, 64, 191)), ("center", (9, 9, 9)), ("squash", (9,) * 3)],
)
def test_timms_crop_modes_are_ours(mode, corner, tuned, tmp_path):
    config = changed({"crop_mode": mode, "mean": [0.5, 0.25, 0.75], "crop_pct": 1.0})
    spec = create_model(str(write(tmp_path / "x", config, tuned))).info.preprocess
    image = Image.new("RGB", (300, 100), (9, 9, 9))
    pixels = resize_and_crop(image, spec)
    assert pixels.shape == (192, 192, 3)
    assert tuple(pixels[0, 0].tolist()) == corner


def test_what_the_file_leaves_out_is_as_timm_has_it(tuned, tmp_path):
    config = {"architecture": "shvit_s1", "num_classes": 3, "pretrained_cfg": {"mean": None}}
    assert (
        create_model(str(write(tmp_path / "x", config, tuned))).info.preprocess == Preprocess()
    )


def test_names_may_be_a_table_by_number(tuned, tmp_path):
    config = changed(label_names={"2": "owl", "0": "cat", "1": "dog"})
    assert create_model(str(write(tmp_path / "x", config, tuned))).info.labels == (
        *("cat", "dog", "owl"),
    )


def test_names_of_the_weights_it_began_with_are_not_its_own(tuned, tmp_path):
    stale = {"num_classes": 2, "label_names": ["yes", "no"]}
    config = {k: v for k, v in changed(stale).items() if k != "label_names"}
    assert create_model(str(write(tmp_path / "x", config, tuned))).info.labels == ()


def test_a_thousand_classes_are_not_imagenets_unless_they_say_so(tmp_path):
    config = {"architecture": "shvit_s1", "num_classes": 1000}
    model = create_model(str(write(tmp_path / "x", config, create_model("shvit_s1"))))
    assert (model.info.labels, model.info.top1) == ((), None)


@pytest.mark.parametrize(
    ("architecture", "said", "licence"),
    [
        ("shvit_s1", None, "mit"),
        ("shvit_s1", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("fastvit_t8", None, "fastvit-license"),
        ("fastvit_mci0", "mit", "apple-amlr"),
    ],
)
def test_weights_trained_further_stay_under_their_licence(
    architecture, said, licence, tmp_path
):
    config = {
        "architecture": architecture,
        "pretrained_cfg": {"license": said, "input_size": [3, 256, 256]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_info(str(tmp_path)).license == licence


def test_a_network_built_for_512_px_takes_512(tmp_path):
    big = create_model("efficientvit_m0", img_size=512, num_classes=3)
    config = {
        "architecture": "efficientvit_m0",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 512, 512], "fixed_input_size": True},
    }
    model = create_model(str(write(tmp_path / "x", config, big)))
    assert (model.config.img_size, model.info.preprocess.size) == (512, 512)
    config = config | {"model_args": {"img_size": 512}, "pretrained_cfg": {}}
    model = create_model(str(write(tmp_path / "x", config, big)))
    assert (model.config.img_size, model.info.preprocess.size) == (512, 512)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (changed({"input_size": [3, 224, 160]}), r"input_size is \[3, 224, 160\], expected"),
        (changed({"input_size": [1, 224, 224]}), "expected .*square images in RGB"),
        (changed({"interpolation": "random"}), "interpolation is 'random'"),
        (changed({"crop_mode": "corner"}), "crop_mode is 'corner'"),
        (changed({"crop_pct": 1.5}), "crop_pct=1.5"),
        (changed({"mean": [0.5]}), "mean is"),
        (changed({"std": [0, 1, 1]}), "std="),
        (changed({"std": [float("nan"), 1.0, 1.0]}), "std="),
        (changed({"mean": [float("inf"), 1.0, 1.0]}), "mean="),
        (changed(global_pool="max"), "global_pool is .*max.*, expected avg"),
        (changed(model_args={"act_layer": "gelu"}), "has no act_layer='gelu'"),
        (changed(model_args={"in_chans": 1}), "in_chans is 1, expected 3"),
        (changed(model_args=3), "model_args is no table"),
        (changed(pretrained_cfg=3), "pretrained_cfg is no table"),
        (changed(num_classes=-3), "num_classes is -3"),
        (changed(num_classes="3"), "num_classes is '3'"),
        (changed(architecture="resnet50"), "no model 'resnet50'"),
        (changed(label_names=["cat", "dog"]), "2 for 3 classes"),
        (changed(label_names=["cat", "cat", "dog"]), "'cat' for classes 0, 1"),
        (changed(label_names=["cat", "cat ", "dog"]), "but for white space"),
        (changed(label_names=["cat", "", "dog"]), "empty for class 1"),
        (changed(label_names=["cat", 1, "dog"]), "no text for class 1"),
        (changed(label_names={"0": "cat"}), "no name for each of 3"),
        (changed(label_names="cat"), "label_names is a str"),
        (changed(label_names=["\ud800", "b", "c"]), "no Unicode for class 0"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_line(config, said, folder):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=said) as caught:
        create_model(str(folder))
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_classes_that_the_weights_have_not_are_refused(folder):
    (folder / "config.json").write_text(json.dumps(changed(num_classes=4, label_names=None)))
    with pytest.raises(
        WeightsError, match=r"head\.linear\.bias has shape \(3,\), expected \(4,\)"
    ):
        create_model(str(folder))


# --- beside a checkpoint that is imported


@pytest.mark.parametrize("name", ["shvit_s1", "shvit_s1.in1k", "hf-hub:timm/shvit_s1.in1k", ""])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_import_takes_what_lies_beside(what, name, folder, tmp_path):
    path = folder if what == "folder" else folder / "model.safetensors"
    info = import_weights(path, name, tmp_path / "out").info
    assert info.preprocess == CONTRACT
    assert info.labels == ("cat", "dog", "owl")
    assert info.provenance.startswith("Imported from model.safetensors, SHA-256 ")
    assert info.provenance.endswith("Described by its config.json.")
    assert load_model(tmp_path / "out").info == info


def test_options_have_the_last_word(folder, tmp_path, ondevice_):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    out = tmp_path / "out"
    options = ("--mean", "0.1,0.2,0.3", "--std", "0.5", "--size", 256, "--crop", "border")
    more = ("--crop-pct", 1, "--interpolation", "bicubic", "--labels", tmp_path / "names.txt")
    assert ondevice_("import", folder, "--out", out, *options, *more)[0] == 0
    info = load_model(out).info
    assert info.labels == ("a", "b", "c")
    assert info.preprocess == Preprocess(
        size=256,
        crop_pct=1.0,
        crop_mode="border",
        interpolation="bicubic",
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.5, 0.5),
    )


def test_one_option_leaves_the_others_to_the_file(folder, tmp_path, ondevice_):
    assert ondevice_("import", folder, "--out", tmp_path / "x", "--crop", "center")[0] == 0
    info = load_model(tmp_path / "x").info
    assert info.preprocess.crop_mode == "center"
    assert info.preprocess.mean == (0.5, 0.5, 0.5)


def test_another_models_config_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json describes a shvit_s1, not a shvit_s2"):
        import_weights(folder / "model.safetensors", "shvit_s2", tmp_path / "out")


@pytest.mark.parametrize("text", ["{", '{"lr": 0.1}', '{"model": "shvit_nano"}'])
def test_a_config_of_others_is_left_alone_and_named(text, folder, tmp_path, caplog):
    (folder / "config.json").write_text(text)
    info = import_weights(
        folder / "model.safetensors", "shvit_s1", tmp_path / "x", num_classes=3
    )
    assert info.info.preprocess == Preprocess()
    assert "is not one of timm's and was not read" in caplog.text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--mean", "1,2"), "--mean is '1,2', expected R,G,B"),
        (("--mean", "a"), "--mean is 'a'"),
        (("--std", "0"), "std="),
        (("--std", "nan"), "std="),
        (("--size", 100), "size is 100, but shvit_s1 takes a multiple of 16"),
        (("--crop", "corner"), "corner"),
        (("--interpolation", "random"), "random"),
        (("--img-size", 512), "it has no img_size; the size of its input is --size"),
        (("--num-classes", 4), "3 for 4 classes"),
        (("--labels", "none.txt"), "none.txt is no file of labels"),
        (("--model", "shvit_s2"), "not a shvit_s2"),
        (("--entry", "ema"), "whose names begin with ema."),
    ],
)
def test_impossible_options_are_one_line(args, said, folder, tmp_path, ondevice_):
    status, out, err = ondevice_("import", folder, "--out", tmp_path / "out", *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_say_what_they_are_are_refused(folder, tmp_path, ondevice_):
    (folder / "config.json").unlink()
    file = folder / "model.safetensors"
    status, _, err = ondevice_("import", file, "--out", tmp_path / "out")
    assert (status, err.count("\n")) == (2, 1)
    assert "name the model, --model NAME" in err
    status, _, err = ondevice_(
        "import", folder, "--model", "shvit_s1", "--out", tmp_path / "out"
    )
    assert (status, err.count("\n")) == (2, 1)


# --- facts that belong to other weights


@pytest.mark.parametrize(
    "name", ["shvit_s1.in1k", "fastvit_t8.apple_in1k", "fastvit_mci0.apple_mclip"]
)
def test_a_fine_tune_has_the_contract_and_the_licence_of_its_tag_alone(name, tmp_path):
    published = model_info(name)
    base = name.partition(".")[0]
    write_safetensors(tmp_path / "tuned.safetensors", torch_arrays(create_model(base)), {})
    info = import_weights(tmp_path / "tuned.safetensors", name, tmp_path / "out").info
    assert (info.preprocess, info.license) == (published.preprocess, published.license)
    assert (info.name, info.source, info.top1, info.labels) == (base, "", None, ())
    assert info.provenance.startswith("Imported from tuned.safetensors")
    made = create_model(name, weights=tmp_path / "tuned.safetensors").info
    assert (made.name, made.source, made.top1, made.labels) == (base, "", None, ())


def test_random_weights_are_nobodys():
    info = create_model("fastvit_t8").info
    assert (info.source, info.top1, info.labels) == ("", None, ())
    assert info.license == "fastvit-license"


def test_published_classes_have_their_names_by_option(tmp_path, ondevice_):
    file = tmp_path / "x.safetensors"
    write_safetensors(file, torch_arrays(create_model("shvit_s1")), {})
    args = ("import", file, "--model", "shvit_s1.in1k", "--labels", "imagenet1k")
    assert ondevice_(*args, "--out", tmp_path / "out")[0] == 0
    assert load_model(tmp_path / "out").info.labels[0].startswith("tench")


# --- the size a network is built for


def test_a_size_to_build_for_is_the_size_it_takes(tmp_path):
    model = create_model("efficientvit_m0", img_size=512)
    assert model.info.preprocess.size == 512
    package = load_package(export(model, tmp_path / "x.mlpackage"))
    assert package.inputs["image"].shape == (512, 512)


def test_an_import_builds_for_a_size(tmp_path, ondevice_):
    file = tmp_path / "x.safetensors"
    write_safetensors(file, torch_arrays(create_model("efficientvit_m0", img_size=512)), {})
    args = ("import", file, "--model", "efficientvit_m0", "--img-size", 512)
    assert ondevice_(*args, "--out", tmp_path / "out")[0] == 0
    info = load_model(tmp_path / "out").info
    assert (info.config.img_size, info.preprocess.size) == (512, 512)
    assert ondevice_(*args, "--size", 448, "--out", tmp_path / "other")[0] == 0
    assert load_model(tmp_path / "other").info.preprocess.size == 448


@pytest.mark.parametrize("size", ["x", 0, -224, 2.5])
def test_an_impossible_size_to_build_for_is_one_line(size):
    with pytest.raises(ConfigError):
        create_model("efficientvit_m0", img_size=size)


def test_a_network_of_one_size_takes_no_other(tmp_path):
    with pytest.raises(ConfigError, match="vit_base_mci_224 takes 224"):
        import_weights("x.pth", "vit_base_mci_224", tmp_path / "out", preprocess={"size": 256})


def test_pixels_are_those_of_the_contract(folder):
    """The contract reaches the numbers: a grey image is (grey - mean) / std."""
    from ondevice.image.preprocess import preprocess

    image = Image.new("RGB", (64, 64), (51, 102, 204))
    x = np.array(preprocess(image, create_model(str(folder)).info.preprocess))
    assert x.shape == (1, 192, 192, 3)
    wanted = (np.array([0.2, 0.4, 0.8]) - 0.5) / np.array([0.4, 0.5, 0.6])
    assert np.allclose(x[0, 5, 5], wanted, atol=1e-6)

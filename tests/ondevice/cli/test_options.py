"""An option that does not apply is refused by its name, and a value that cannot be."""

import socket

import pytest
from PIL import Image

import ondevice
from ondevice.cli import cli, run
from ondevice.tasks.train.options import Options
from ondevice.tasks.train.trainer import Settings

NANO = ("--model", "shvit_nano.cifar10")


@pytest.fixture
def photos(tmp_path):
    """Three images of each of two classes."""
    for name, value in (("black", 0), ("white", 255)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            path = tmp_path / "photos" / name / f"{i}.png"
            Image.new("RGB", (40 + i, 40), (value,) * 3).save(path)
    return tmp_path / "photos"


def refused(capsys, *args):
    """What a command line says that is refused with one line."""
    assert run([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert not out
    lines = [line for line in err.splitlines() if "BLAS" not in line]
    assert len(lines) == 1, err
    return lines[0]


def test_settings_of_full_are_refused_where_auto_is_probe(photos, tmp_path, capsys):
    out = tmp_path / "out"
    said = refused(capsys, "train", photos, *NANO, "--out", out, "--lr", 0.1, "--no-flip")
    assert "flip, lr: of --method full or adapter; for 4 images" in said
    assert not out.exists()
    assert run(["train", str(photos), *NANO, "--out", str(out)]) == 0


def test_a_backbone_with_random_weights_is_refused(tmp_path, capsys):
    options = ("--task", "detect", "--backbone", "shvit_nano.cifar10", "--random-weights")
    said = refused(capsys, "train", tmp_path, *options, "--out", tmp_path / "out")
    assert "give one of --backbone and --random-weights" in said


def test_no_range_takes_nan(tmp_path, capsys):
    options = {
        ("train", "photos/", "--out", "out"): "--val-share",
        ("detect", "photo.jpg", "--model", "light_detr_shvit_nano.shapes"): "--threshold",
        ("classify", "photo.jpg"): "--max-level",
        ("export", "shvit_nano.cifar10"): "--min-agreement",
        ("import", "weights.pth", "--out", "out"): "--crop-pct",
    }
    for command, option in options.items():
        said = refused(capsys, *command, option, "nan")
        assert f"Invalid value for '{option}': nan is not in the range" in said


def test_force_replaces_no_file_by_a_folder(photos, tmp_path, capsys):
    notes = tmp_path / "labels.txt"
    notes.write_text("mine")
    detector = ("--model", "light_detr_shvit_nano.shapes")
    for command in (
        ("train", photos, *NANO),
        ("app", "shvit_nano.cifar10", "--name", "Mine"),
        ("detect", photos, *detector),
    ):
        said = refused(capsys, *command, "--out", notes, "--force")
        assert f"{notes} is a file, and a folder is written; it is not replaced" in said
    assert notes.read_text() == "mine"


def test_where_a_plot_goes_is_known_before_the_search(photos, tmp_path, capsys):
    export = ("export", "shvit_nano.cifar10", "--out", tmp_path / "x.mlpackage")
    search = ("--budget", "1MB", "--calibrate", photos)
    old = tmp_path / "old.json"
    old.write_text("mine")
    said = refused(capsys, *export, *search, "--pareto", old)
    assert f"{old} exists; use --force" in said
    said = refused(capsys, *export, *search, "--pareto", tmp_path / "plot.png")
    assert "plot.png has to end with .svg or .json" in said
    assert old.read_text() == "mine"


@pytest.mark.parametrize("option", ["--recipe", "--calibrate", "--budget"])
def test_an_empty_option_of_export_is_refused(option, tmp_path, capsys):
    export = ("export", "shvit_nano.cifar10", "--out", tmp_path / "x.mlpackage")
    assert f"{option} is empty" in refused(capsys, *export, option, "")


def test_a_target_of_core_ai_is_refused_in_words_of_the_command(tmp_path, capsys):
    export = ("export", "shvit_nano.cifar10", "--out", tmp_path / "x.aimodel")
    said = refused(capsys, *export, "--target", "iOS18")
    assert "--target is of Core ML alone: of a --out that ends in .mlpackage" in said


@pytest.mark.parametrize("options", [(), ("--recipe", "none")])
def test_a_table_of_what_is_not_compressed_is_refused(options, tmp_path, capsys):
    export = ("export", "shvit_nano.cifar10", "--out", tmp_path / "x.mlpackage", "--table")
    said = refused(capsys, *export, *options)
    assert "--table says how each weight was compressed: give --recipe" in said


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("verify", "x.mlpackage"), "--html"),
        (("evaluate", "shvit_nano.cifar10", "--images", "photos/"), "--html"),
        (("inspect", "x.mlpackage"), "--html"),
        (("detect", "photo.jpg", "--model", "light_detr_shvit_nano.shapes"), "--out"),
    ],
)
def test_force_is_refused_where_nothing_is_written(command, option, capsys):
    assert f"--force goes with {option}: nothing else is written" in refused(
        capsys, *command, "--force"
    )


def test_a_port_that_is_taken_is_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(capsys, "studio", "--port", port, "--no-browser")
    assert f"cannot listen at 127.0.0.1, port {port}: " in said
    said = refused(capsys, "studio", "--host", "nowhere.invalid", "--no-browser")
    assert "cannot listen at nowhere.invalid" in said


def test_only_close_names_are_suggested(capsys):
    said = refused(capsys, "show", "my_folder")
    assert said == "error: no model 'my_folder'; `ondevice list` has them all"
    assert "did you mean shvit_s4, shvit_s" in refused(capsys, "show", "shvit_s44")


def test_drawings_are_replaced_though_the_first_photo_cannot_be_used(photos, tmp_path, capsys):
    (photos / "a.png").write_text("no image")
    command = ["detect", str(photos), "--model", "light_detr_shvit_nano.shapes"]
    command += ["--out", str(tmp_path / "drawn")]
    assert run(command) == 3
    assert run([*command, "--force"]) == 3


def test_a_photo_given_twice_has_one_drawing(photos, tmp_path, capsys):
    photo, out = str(photos / "white" / "0.png"), tmp_path / "drawn"
    model = ("--model", "light_detr_shvit_nano.shapes")
    assert run(["detect", photo, photo, *model, "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["0.png"]
    assert run(["detect", photo, photo, *model, "--out", str(out), "--force"]) == 0


def test_weights_of_another_variant_are_a_line_that_can_be_read(tmp_path, capsys):
    small = ondevice.create_model("shvit_nano", num_classes=0)
    ondevice.save_model(small, tmp_path / "small")
    weights = (tmp_path / "small" / "model.safetensors").rename(tmp_path / "w.safetensors")
    said = refused(capsys, "import", weights, "--model", "shvit_s1", "--out", tmp_path / "out")
    assert "shvit_s1 cannot take" in said
    assert said.count("has shape") == 12
    assert len(said) < 3000


def test_a_saved_model_needs_no_import(tmp_path, capsys):
    ondevice.save_model(ondevice.create_model("shvit_nano", num_classes=2), tmp_path / "mine")
    said = refused(capsys, "import", tmp_path / "mine", "--out", tmp_path / "out")
    assert "mine is a saved model already: other commands take it as it is" in said


def test_an_empty_recipe_is_none_to_train_for(photos, tmp_path, capsys):
    options = ("--method", "full", "--recipe", "", "--out", tmp_path / "out")
    assert "no recipe ''" in refused(capsys, "train", photos, *NANO, *options)


def test_training_has_one_set_of_defaults():
    """The command gives only what is asked for: its help has to say what train then takes."""
    own = {**vars(Settings()), **vars(Options()), "adapter": 8}
    for option in cli.get_command(None, "train").params:
        if option.name in own and isinstance(option.default, (int, float, str)):
            assert option.default == own[option.name], option.name

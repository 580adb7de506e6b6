import io
import json
import os
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

from ondevice import create_model
from ondevice.cli import cli
from ondevice.errors import ConfigError, ImageError
from ondevice.image.open import ImageFile, as_rgb, open_image
from ondevice.tasks.embeddings.encode import encode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def quarters():
    """Red and green above blue and white: shows which way is up."""
    image = Image.new("RGB", (16, 16), RED)
    image.paste(GREEN, (8, 0, 16, 8))
    image.paste(BLUE, (0, 8, 8, 16))
    image.paste(WHITE, (8, 8, 16, 16))
    return image


def corners(image):
    w, h = image.size
    return [image.getpixel(xy) for xy in ((1, 1), (w - 2, 1), (1, h - 2), (w - 2, h - 2))]


def png_header(width, height):
    """A PNG that says how large it is and holds nearly nothing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp", "tiff"])
def test_common_formats_are_opened(tmp_path, quarters, suffix):
    quarters.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    image = open_image(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB"
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


def test_an_animation_is_its_first_frame(tmp_path, quarters):
    others = [Image.new("RGB", quarters.size, color) for color in ("red", "blue")]
    quarters.save(tmp_path / "a.gif", save_all=True, append_images=others)
    assert corners(open_image(tmp_path / "a.gif")) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_becomes_rgb(tmp_path, quarters):
    quarters.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    found = np.array(corners(open_image(tmp_path / "a.jpg")), int)
    assert np.abs(found - [RED, GREEN, BLUE, WHITE]).max() <= 4  # JPEG's own error


@pytest.mark.parametrize(("suffix", "endian"), [("png", "<"), ("tiff", "<"), ("tiff", ">")])
@pytest.mark.parametrize("scale", [256, 257])  # both ways to make 16 bits of 8
def test_16_bits_keep_the_whole_range(tmp_path, suffix, endian, scale):
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    wide = (pixels * scale).astype(f"{endian}u2")
    mode = "I;16B" if endian == ">" else "I;16"
    Image.frombytes(mode, (16, 16), wide.tobytes()).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(np.array(open_image(tmp_path / f"a.{suffix}"))[..., 1], pixels)


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.new("1", (16, 16))
    image.paste(1, (8, 0, 16, 16))
    image.save(tmp_path / "a.png")
    assert corners(open_image(tmp_path / "a.png")) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_alpha_is_dropped_as_timm_does(tmp_path, mode):
    image = Image.new("RGBA", (16, 16), (80, 80, 80, 255))
    image.paste((200, 200, 200, 0), (8, 0, 16, 16))
    if mode == "P":  # a palette whose second colour is transparent
        image = Image.new("P", (16, 16))
        image.putpalette([80] * 3 + [200] * 3)
        image.paste(1, (8, 0, 16, 16))
        image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    else:
        image = image.convert(mode)
        image.save(tmp_path / "a.png") if mode != "PA" else image.save(tmp_path / "a.tiff")
    path = next(tmp_path.glob("a.*"))
    assert corners(open_image(path)) == [(80,) * 3, (200,) * 3] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_photos_are_turned_upright(tmp_path, quarters, orientation, suffix):
    # How a camera stores an upright image under each EXIF orientation.
    stored_by = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters.transpose(stored_by[orientation]) if orientation > 1 else quarters
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=100, subsampling=0)
    found = np.array(corners(open_image(tmp_path / f"a.{suffix}")), int)
    assert np.abs(found - [RED, GREEN, BLUE, WHITE]).max() <= 4


def test_a_pil_image_is_turned_upright_once(quarters):
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    quarters.transpose(Image.Transpose.ROTATE_180).save(file, "PNG", exif=exif)
    upright = as_rgb(Image.open(file))
    assert corners(upright) == corners(as_rgb(upright)) == [RED, GREEN, BLUE, WHITE]


def test_broken_exif_data_do_not_matter(tmp_path, quarters):
    quarters.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*broken")
    assert corners(open_image(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]


def test_an_open_file_will_do(tmp_path, quarters):
    quarters.save(tmp_path / "a.png")
    assert corners(open_image(io.BytesIO((tmp_path / "a.png").read_bytes()))) == corners(
        quarters
    )


def photo_bytes(kind="JPEG"):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


BAD_FILES = {
    "empty.jpg": (b"", "is empty"),
    "text.jpg": (b"hello, this is text\n" * 20, "is not an image"),
    "cut.jpg": (photo_bytes()[:2000], "is damaged: .*truncated"),
    "cut.png": (photo_bytes("PNG")[:2000], "is damaged: "),
    "header.jpg": (photo_bytes()[:20], "is not an image|cannot be read|is damaged"),
    "huge.png": (
        png_header(60_000, 60_000),
        "has more than 178,956,970 pixels; make it smaller",
    ),
    "lie.png": (png_header(5000, 5000), "is damaged: "),
    "program.eps": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "is PostScript",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, name):
    data, said = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=f"{name} ({said})") as caught:
        open_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.jpg cannot be opened: No such file"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=r"is a folder; give image files"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match=r"null byte"):
        open_image("a\0b.jpg")


def test_a_name_cannot_break_the_line(tmp_path):
    with pytest.raises(ImageError, match=r"\\n") as caught:
        open_image(tmp_path / "two\nlines.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = threading.Event()

    def read():
        with pytest.raises(ImageError, match="not a regular file"):
            open_image(tmp_path / "pipe")
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(5)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_scale_are_refused(mode):
    image = Image.new(mode, (8, 8), 70_000)
    with pytest.raises(ImageError, match="pixels of unknown scale; say which value is white"):
        as_rgb(image)


# Formats that need a plugin


def test_heic_is_opened_where_pillow_heif_is_installed(tmp_path, quarters):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(quarters).save(tmp_path / "a.heic", quality=-1)
    found = np.array(corners(open_image(tmp_path / "a.heic")), int)
    assert np.abs(found - [RED, GREEN, BLUE, WHITE]).max() <= 4
    with (tmp_path / "a.heic").open("rb") as file:
        assert open_image(file).size == (16, 16)


@pytest.mark.parametrize(
    ("brand", "said"),
    [
        (b"heic", r"a\.x is HEIC, which needs pillow-heif: pip install 'ondevice\[heif\]'"),
        (b"mif1", "is HEIC"),
        (b"avif", "is AVIF, which needs Pillow 11.3 or later"),
        (b"isom", "is not an image"),  # a film
    ],
)
def test_a_format_that_needs_a_plugin_says_which(tmp_path, monkeypatch, brand, said):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed

    def unknown(*_):
        raise UnidentifiedImageError

    monkeypatch.setattr(Image, "open", unknown)
    (tmp_path / "a.x").write_bytes(b"\0\0\0\x18ftyp" + brand)
    with pytest.raises(ImageError, match=said):
        open_image(tmp_path / "a.x")


# More than 8 bits: what is white


def save_grey(path, top, dtype=np.uint16):
    """Levels from 0 to ``top`` in equal steps."""
    pixels = np.linspace(0, top, 256).astype(dtype).reshape(16, 16)
    Image.fromarray(pixels).save(path)
    return pixels


def greys(path, **options):
    return np.array(open_image(path, **options))[..., 0]


@pytest.mark.parametrize(("top", "advised"), [(255, 255), (1023, 1023), (4000, 4095)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_dark_16_bits_are_said_to_be_dark_with_what_to_do(
    tmp_path, caplog, suffix, top, advised
):
    save_grey(tmp_path / f"a.{suffix}", top)
    assert greys(tmp_path / f"a.{suffix}").max() == top >> 8
    (record,) = caplog.records
    said = record.getMessage()
    assert f"a.{suffix} has values up to {top} of 65535 and comes out nearly black" in said
    assert f"--max-level {advised}" in said


@pytest.mark.parametrize(
    ("top", "dtype"), [(4095, np.uint16), (70_000, np.int32), (1.0, np.float32)]
)
def test_white_is_where_it_is_said_to_be(tmp_path, caplog, top, dtype):
    save_grey(tmp_path / "a.tiff", top, dtype)
    found = greys(tmp_path / "a.tiff", max_level=top)
    assert np.abs(found.ravel().astype(int) - np.arange(256)).max() <= 1
    assert np.array_equal(greys(ImageFile(str(tmp_path / "a.tiff"), top)), found)
    assert not caplog.records


def test_values_above_white_are_said_to_be_clipped(tmp_path, caplog):
    save_grey(tmp_path / "a.png", 4095)
    assert (greys(tmp_path / "a.png", max_level=1023) == 255).mean() > 0.7
    assert "values up to 4095: all above 1023 are white" in caplog.text


def test_no_warning_for_full_range_black_and_8_bits(tmp_path, caplog):
    for top, dtype in ((65535, np.uint16), (0, np.uint16), (40, np.uint8)):
        save_grey(tmp_path / "a.png", top, dtype)
        greys(tmp_path / "a.png")
    assert not caplog.records


def test_bad_values_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match="NaN or infinite"):
        open_image(tmp_path / "a.tiff", max_level=1)
    with pytest.raises(ConfigError, match="max_level is a positive number; given 0"):
        open_image(tmp_path / "a.tiff", max_level=0)


def deep_colour_png(pixels):
    """A PNG of 16-bit RGB, which PIL cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc(kind + data))

    crc = zlib.crc32
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_deep_colours_that_come_out_dark_are_named(tmp_path, caplog):
    ramp = np.linspace(0, 65535, 768).reshape(16, 16, 3)
    (tmp_path / "whole.png").write_bytes(deep_colour_png(ramp))
    (tmp_path / "dark.png").write_bytes(deep_colour_png(ramp / 16))
    assert np.array(open_image(tmp_path / "whole.png")).max() == 255
    assert not caplog.records
    assert np.array(open_image(tmp_path / "dark.png")).max() == 15
    assert "dark.png has 16-bit colours up to 4095 of 65535" in caplog.text
    with pytest.raises(ImageError, match="no --max-level"):
        open_image(tmp_path / "dark.png", max_level=4095)


def test_a_white_of_8_bits_is_said_to_have_no_effect(tmp_path, caplog):
    Image.new("L", (4, 4), 100).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_level=4095).getpixel((0, 0)) == (100,) * 3
    assert "a.png has 8 bits: no --max-level (max_level=) applies" in caplog.text


def test_a_tiff_may_say_that_zero_is_white(tmp_path):
    pixels = save_grey(tmp_path / "a.tiff", 65535)
    data = (tmp_path / "a.tiff").read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)
    assert data.count(tag + struct.pack("<H", 1)) == 1
    inverted = data.replace(tag + struct.pack("<H", 1), tag + struct.pack("<H", 0))
    (tmp_path / "b.tiff").write_bytes(inverted)
    assert np.array_equal(greys(tmp_path / "b.tiff"), 255 - (pixels >> 8))


def test_a_tiff_of_12_bits_has_its_white_where_they_end(tmp_path, caplog):
    """Two values in three bytes."""
    pairs = np.array([0, 4095] * 8 * 16).reshape(-1, 2)
    a, b = pairs.T
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8)
    tags = [
        (256, 16),
        (257, 16),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, 16),
    ]
    tags.append((279, packed.size))
    entries = b"".join(
        struct.pack("<HHII", t, 4 if t in (273, 279) else 3, 1, v) for t, v in tags
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "a.tiff").write_bytes(head.ljust(122, b"\0") + packed.tobytes())
    assert np.array_equal(greys(tmp_path / "a.tiff")[0], [0, 255] * 8)
    assert not caplog.records


def test_a_colour_profile_is_not_applied_as_in_timm(tmp_path, quarters):
    """Display P3, as iPhones write it, or any other."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    quarters.save(tmp_path / "a.png", icc_profile=profile)
    assert corners(open_image(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("command", ["classify", "verify", "encode", "export", "search"])
def test_every_command_has_the_option(command):
    options = {option for p in cli.get_command(None, command).params for option in p.opts}
    assert "--max-level" in options


def test_commands_warn_once_a_file_and_take_the_option(tmp_path, ondevice_):
    save_grey(tmp_path / "a.png", 4095)
    grey = Image.fromarray(
        (np.linspace(0, 4095, 256).reshape(16, 16) / 4095 * 255).round().astype(np.uint8)
    )
    grey.save(tmp_path / "b.png")
    status, dark, err = ondevice_("classify", tmp_path / "a.png", "--json")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith(f"warning: {tmp_path}/a.png has values up to 4095")
    _, light, err = ondevice_("classify", tmp_path / "a.png", "--json", "--max-level", "4095")
    _, wanted, _ = ondevice_("classify", tmp_path / "b.png", "--json")
    light, wanted, dark = (
        {p["label"]: p["score"] for p in json.loads(text)["results"][0]["predictions"]}
        for text in (light, wanted, dark)
    )
    assert err == ""
    assert light == pytest.approx(wanted, abs=0.02)
    assert dark != pytest.approx(wanted, abs=0.02)


def test_encode_with_another_white_is_another_job(tmp_path):
    model = create_model("shvit_nano.cifar10")
    save_grey(tmp_path / "a.png", 4095)
    rows = []
    for n, level in enumerate((None, 4095)):
        done = encode(model, [tmp_path / "a.png"], tmp_path / f"{n}.npz", max_level=level)
        with np.load(done.out) as found:
            rows.append(found["embeddings"])
    assert np.abs(rows[0] - rows[1]).max() > 0.01

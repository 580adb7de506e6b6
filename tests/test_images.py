import io
import os
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from ondevice.errors import ImageError
from ondevice.images import as_rgb, open_image

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
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    wide = (levels * scale).astype(f"{endian}u2")
    mode = "I;16B" if endian == ">" else "I;16"
    Image.frombytes(mode, (16, 16), wide.tobytes()).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(np.array(open_image(tmp_path / f"a.{suffix}"))[..., 1], levels)


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
    # How a camera stores an upright picture under each EXIF orientation.
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
    with pytest.raises(ImageError, match="pixels of unknown scale; save it with 8 or 16 bits"):
        as_rgb(image)

"""What the README and the other pages say to type works."""

from __future__ import annotations

import re

import click
import mlx.core as mx
import pytest

from converters.graph.passes import channels_first, run_passes
from converters.graph.trace import trace
from ondevice import create_model, fuse
from ondevice.errors import OnDeviceError

from ..support.commands import (
    EXAMPLES,
    PAGES,
    PROGRAMS,
    ROOT,
    blocks,
    check,
    check_fragment,
    fragments,
    lines,
    said_in_example,
)

SAID = [(page.name, line) for page in PAGES for line in lines(page)]


@pytest.mark.parametrize(("page", "line"), SAID, ids=lambda part: part)
def test_a_command_takes_what_a_page_gives_it(page, line):
    check(line)


@pytest.mark.parametrize("code", [c for page in PAGES for c in fragments(page)])
def test_an_option_in_the_text_is_one(code):
    check_fragment(code)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_to_run_itself(example):
    (line,) = said_in_example(example)
    code = example.read_text(encoding="utf-8").split('"""', 2)[2]
    _, arguments = line.split(f"python examples/{example.name}")
    assert bool(arguments) == ("sys.argv" in code or "add_argument" in code)
    for option in re.findall(r"--\w[\w-]*", arguments):
        assert f'add_argument("{option}"' in code


def test_the_commands_of_the_pages_are_found():
    found = [line for page, line in SAID if page == "README.md"]
    in_blocks = "".join(blocks(ROOT / "README.md", "sh")).count("ondevice ")
    assert in_blocks > 10
    assert len([line for line in found if line.startswith("ondevice ")]) >= in_blocks + 1
    assert "ondevice import CHECKPOINT --model NAME --out FOLDER" in found  # in the text
    assert fragments(ROOT / "docs/how.md") == ["--input array"]
    assert fragments(ROOT / "CHANGELOG.md")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ondevice exprot shvit_s4", "no command 'exprot'"),
        ("ondevice export --out SHViT.mlpackage", "Missing argument 'MODEL...'"),
        ("ondevice export shvit_s4 --target iOS99", "'iOS99' is not one of"),
        ("ondevice export shvit_s9", "no model 'shvit_s9'"),
        ("ondevice export shvit_s4.in22k", "no weights shvit_s4.in22k"),
        ("ondevice export shvit_s4 --recipe palette7", "no recipe 'palette7'"),
        ("ondevice export shvit_s4 --budget 0.8XB", "a budget is a size"),
        ("ondevice export shvit_s4 --target iOS17 --attention fused", "needs target iOS18"),
        ("ondevice verify SHViT.mlpackage --imges photos/", "No such option"),
        ("ondevice verify SHViT --images photos/", "has to end with .mlpackage"),
        ("ondevice verify a.mlpackage --gate psnr_db", "not like psnr_db=50"),
        ("ondevice encode photos/ --out photos.csv", "has to end with"),
        ("ondevice encode photos/", "Missing option '--out'"),
        ("ondevice search a.jpg --index photos.csv", "has to end with"),
        ("ondevice classify --model shvit_s4", "Missing argument"),
        ("ondevice classify a.jpg --top-k 0", "not in the range"),
        ("ondevice list 'fastvid*'", "no model matches"),
        ("ondevice import CHECKPOINT --model NAME", "Missing option '--out'"),
        ("pip install -e '.[tets]'", "no extras"),
        ("--input arry", "no command takes --input arry"),
        ("--inptu", "no command takes --inptu"),
        ("import --baselines", "no command takes import --baselines"),
        ("python examples/clasify.py photo.jpg", "no file"),
    ],
)
def test_a_mistake_would_be_noticed(line, said):
    with pytest.raises((click.UsageError, OnDeviceError)) as error:
        check(line) if line.split()[0] in PROGRAMS else check_fragment(line)
    message = getattr(error.value, "format_message", lambda: str(error.value))()
    assert said in message


def test_operations_are_as_many_as_the_page_counts():
    page = " ".join((ROOT / "docs/how.md").read_text(encoding="utf-8").split())
    traced = trace(fuse(create_model("shvit_nano")), mx.zeros((1, 96, 96, 3)))
    raised = run_passes(traced)
    ops = [node.op for node in channels_first(raised).nodes]
    assert f"every primitive of a call, {len(traced.nodes)} of them here" in page
    assert f"{len(raised.nodes)} are left" in page
    assert ops.count("Transpose") == 1  # of the image, which Core ML hands over so already
    assert f"{len(ops) - 1} operations, and no transpose" in page

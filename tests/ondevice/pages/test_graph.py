"""A graph of operations: where each is placed, and that it is markup."""

from __future__ import annotations

from xml.etree import ElementTree

from converters.verification.drawing import draw_program
from ondevice.pages.graph import Node, draw, place

EVIL = "<script>alert(1)</script>'\"&"


def nodes(*wires):
    """Nodes called by letters, each with those that it reads: "cab" reads a and b."""
    return [Node(w[0], w[0], "", w, tuple(w[1:])) for w in wires]


def test_a_node_is_below_what_it_reads_and_beside_what_is_there():
    at = place(nodes("a", "ba", "ca", "db", "edc", "fe"))
    assert at == {"a": (0, 0), "b": (0, 1), "c": (1, 1), "d": (0, 2), "e": (0, 3), "f": (0, 4)}


def test_no_two_nodes_are_in_one_place():
    at = place(nodes("a", *(f"{letter}a" for letter in "bcdefg"), "hb", "ig", "jg"))
    assert len({*at.values()}) == len(at)
    assert at["i"] == (at["g"][0], 2)


def test_a_drawing_is_markup_whatever_its_texts_are():
    given = [Node("a", EVIL, EVIL, EVIL, ()), Node("b", EVIL, EVIL, EVIL, ("a", "gone"))]
    tree = ElementTree.fromstring(draw(given, EVIL))
    assert {e.tag for e in tree.iter()} == {"svg", "g", "path", "title", "rect", "text"}
    assert tree.get("aria-label") == EVIL
    assert len(tree.findall(".//path")) == 1
    assert [e.text for e in tree.iter("title")] == [EVIL, EVIL]


def test_a_package_is_drawn_as_its_program_is(package):
    tree = ElementTree.fromstring(draw_program(package))
    drawn = [g.find("text").text for g in tree.iter("g") if "node" in g.get("class", "")]
    operations = [op.type for op in package.stored().operations]
    assert drawn == ["image", *operations]
    made = {name for op in package.stored().operations for name in op.outputs} | {"image"}
    wires = [r for op in package.stored().operations for r in {*op.reads()} & made]
    assert len(tree.findall(".//path")) <= len(wires)
    assert len(tree.findall(".//path")) >= len(operations) - 1  # all are connected
    kinds = [g.get("class") for g in tree.iter("g")]
    assert kinds.count("node moves") > 10
    assert kinds.count("node weighs") > 50

"""Recipes as files and presets, and the mistakes that people make in them."""

from __future__ import annotations

import pytest

from converters.compress.apply import compress_graph
from converters.compress.recipe import CompressionRecipe, Rule, load_recipe
from ondevice.errors import ConfigError

from ...support.lowered import stored
from .odd import exported, physical


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_recipe_can_be_a_file(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    path.write_text(
        '{"rules": [{"pattern": "head.*", "method": "none"},'
        ' {"pattern": "*", "method": "palettize", "bits": 6}], "activations": "kl"}'
        if suffix == ".json"
        else "rules:\n- {pattern: head.*, method: none}\n"
        "- pattern: '*'\n  method: palettize\n  bits: 6\nactivations: kl\n"
    )
    recipe = load_recipe(path, stored("iOS17"))
    assert recipe.name == "mine"
    assert recipe.rules == (Rule("head.*", "none"), Rule("*", "palettize", bits=6))
    assert recipe.activations == "kl"
    assert load_recipe(path, stored("iOS17")).to_dict()["rules"][1]["bits"] == 6


BROKEN = {
    "not YAML": ("a.yaml", "rules: [", "not YAML"),
    "not JSON": ("a.json", "{", "Expecting"),
    "no rules": ("a.yaml", "x: 1", 'list of "rules"'),
    "no pattern": ("a.yaml", "rules: [{method: none}]", '"pattern" and a "method"'),
    "no method": ("a.yaml", "rules: [{pattern: '*', method: squash}]", "no method 'squash'"),
    "no option": (
        "a.yaml",
        "rules: [{pattern: '*', method: quantize, bit: 4}]",
        "no option 'bit'",
    ),
    "no bits": (
        "a.yaml",
        "rules: [{pattern: '*', method: palettize, bits: 5}]",
        "bits is 4, 1,",
    ),
    "no number": ("a.yaml", "rules: [{pattern: '*', method: palettize, group: x}]", "a number"),
    "all gone": ("a.yaml", "rules: [{pattern: '*', method: prune, sparsity: 1}]", "below 1"),
    "unknown key": ("a.yaml", "rules: []\nextra: 1", "unknown extra"),
    "no range": ("a.yaml", "rules: []\nactivations: best", "no activation range 'best'"),
    "missing": ("", "", "No such file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recipe_file_is_one_line(tmp_path, case):
    name, text, said = BROKEN[case]
    path = tmp_path / (name or "missing.yaml")
    if name:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, stored("iOS18"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ConfigError, match="int8, palette8, palette6"):
        load_recipe("tiny", stored("iOS17"))


def test_a_pattern_that_matches_nothing_is_refused(odd):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("heads.*", "none"), Rule("*", "quantize", bits=8)))
    with pytest.raises(ConfigError, match=r"no weight matches heads\.\*; there are stem"):
        compress_graph(graph, recipe, storage=stored("iOS17"))


@pytest.mark.parametrize(
    "options", [{"bits": 3}, {"group": 16}, {"table_bits": 8}], ids=lambda o: str(*o)
)
def test_what_a_target_cannot_hold_is_refused_with_what_it_can(odd, options):
    graph, _ = physical(odd)
    recipe = CompressionRecipe((Rule("*", "palettize", **options),))
    with pytest.raises(ConfigError, match=r"needs iOS18, not iOS17.*palette4"):
        compress_graph(graph, recipe, storage=stored("iOS17"))


def test_a_recipe_and_a_search_exclude_each_other(odd, samples, tmp_path):
    for limits in ({"recipe": "int8", "budget": 1000}, {"budget": 1, "min_agreement": 0.9}):
        with pytest.raises(ConfigError, match="not both"):
            exported(odd, tmp_path / "a.mlpackage", calibration=samples, **limits)

"""``ondevice show``: all that is known about one model."""

from __future__ import annotations

from typing import Any

import click

from ..config import RESTRICTED, ModelInfo
from ..registry import ModelSpec, model_spec, parse_name
from ._output import json_option, print_json, short_number


@click.command()
@click.argument("model")
@json_option
def show(model: str, as_json: bool) -> None:
    """Print what is known about MODEL: a name, name.tag or a folder.

    Nothing is downloaded. A name without a tag means its first published weights.
    """
    from ..weights.folder import is_folder, model_info

    if not is_folder(model):
        spec, tag = parse_name(model)
        if not tag and spec.checkpoints:
            model = f"{spec.name}.{spec.checkpoint().tag}"
    info = model_info(model)
    spec = model_spec(info.model)
    facts = {**_facts(spec, info), "weights": _weights(spec), "features": _features(info)}
    print_json(facts) if as_json else _print(facts)


def _facts(spec: ModelSpec, info: ModelInfo) -> dict[str, Any]:
    checkpoint = next((c for c in spec.checkpoints if c.tag == info.tag), None)
    network = spec.build(info.config)
    network.info = info
    return {
        "name": info.name,
        "family": spec.family,
        "params": _count_params(network),
        "macs": spec.macs,
        "outputs": _outputs(network),
        "size": info.preprocess.size,
        "sizes": _sizes(spec),
        "license": info.license,
        "restricted": info.license in RESTRICTED,
        "source": info.source,
        "top1": info.top1,
        "metrics": info.metrics,
        "provenance": info.provenance,
        "note": checkpoint.note if checkpoint else "",
        "labels": list(info.labels),
        "config": info.config.to_dict(),
        "preprocess": info.preprocess.to_dict(),
    }


def _count_params(network: Any) -> int:
    """As torch counts: without the running statistics of batch norms. Computes no array."""
    from mlx.utils import tree_flatten

    parameters = dict(tree_flatten(network.trainable_parameters()))
    return sum(array.size for array in parameters.values())


def _outputs(network: Any) -> list[str]:
    """What export --output takes, the default first."""
    signature = network.signature
    names = dict.fromkeys(signature.default_outputs)
    return list(names | dict.fromkeys(o.group or o.name for o in signature.outputs))


def _sizes(spec: ModelSpec) -> str:
    if spec.fixed_size:
        return "this size only"
    return "any size" if spec.stride == 1 else f"any multiple of {spec.stride}"


def _weights(spec: ModelSpec) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{spec.name}.{c.tag}",
            "license": c.license,
            "top1": c.top1,
            "repo": c.repo or None,
            "url": c.url or None,
        }
        for c in spec.checkpoints
    ]


def _features(info: ModelInfo) -> list[dict[str, int]]:
    return [feature._asdict() for feature in info.config.feature_info]


def _print(facts: dict[str, Any]) -> None:
    restriction = "; it limits passing them on: read it" if facts["restricted"] else ""
    maps = [f"{f['channels']} at 1/{f['stride']}" for f in facts["features"]]
    labels = facts["labels"]
    lines = {
        "model": f"{facts['name']}, family {facts['family']}",
        "params": short_number(facts["params"]),
        "MACs": short_number(facts["macs"]),
        "input": f"{facts['size']} px; {facts['sizes']}",
        "licence": facts["license"] + restriction,
        "source": facts["source"],
        "top-1": facts["top1"],
        "measured": _pairs(facts["metrics"]),
        "origin": facts["provenance"],
        "note": facts["note"],
        "labels": f"{len(labels)}: {', '.join(labels[:10])}" if labels else None,
        "outputs": ", ".join(facts["outputs"]),
        "features": ", ".join(maps),
        "config": _pairs(facts["config"]),
        "preprocess": _pairs(facts["preprocess"]),
        "weights": ", ".join(w["name"] for w in facts["weights"]),
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        if value:
            click.echo(f"{name:{width}}  {value}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())

"""Writes the page of models: python -m tests.docs.models_page > docs/models.md"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import groupby

from ondevice.cli._output import short_number
from ondevice.registry import ModelSpec, list_models, model_spec

HEAD = """# Models

Written by `python -m tests.docs.models_page`; a test sees that it is current. Names, weights
and figures are timm's, transformers' or the authors': parameters and MACs as published, the
top-1 on ImageNet-1k of the best weights at their own size. `ondevice list` has all
weights with licence and source, `ondevice list --best-under 5M` the best of a size. Which of
them were compared with PyTorch, and how close they came, is in `tests/parity`.
"""
COLUMNS = (
    "| variant | parameters | MACs | px | top-1 | licences | weights |",
    "|---|---|---|---|---|---|---|",
)


def page() -> str:
    """All families, a table each."""
    specs = sorted(map(model_spec, list_models()), key=lambda s: (_title(s), s.family))
    lines = [HEAD]
    for (title, family), found in groupby(specs, key=lambda s: (_title(s), s.family)):
        variants = sorted(found, key=lambda s: (s.params or 0, s.name))
        lines += [f"## {family}", "", _about(title, variants[0]), "", *COLUMNS]
        lines += [*map(_row, variants), ""]
    return "\n".join(lines)


def _source(spec: ModelSpec) -> str:
    """The text at the head of the file that a family is in."""
    return inspect.getdoc(inspect.getmodule(spec.build)) or ""


def _title(spec: ModelSpec) -> str:
    return _source(spec).partition("\n\n")[0].replace("\n", " ")


def _about(title: str, spec: ModelSpec) -> str:
    papers = dict.fromkeys(re.findall(r"arxiv\.org/abs/([\d.]+\d)", _source(spec)))
    links = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers)
    return f"{title} {links}" if links else title


def _row(spec: ModelSpec) -> str:
    best = max((c.top1 for c in spec.checkpoints if c.top1 is not None), default=None)
    cells = (
        f"`{spec.name}`",
        short_number(spec.params),
        short_number(spec.macs),
        ", ".join(map(str, _sizes(spec))),
        None if best is None else f"{best:.1f}",
        ", ".join(dict.fromkeys(c.license for c in spec.checkpoints)),
        len(spec.checkpoints),
    )
    return f"| {' | '.join('-' if cell in (None, '') else str(cell) for cell in cells)} |"


def _sizes(spec: ModelSpec) -> Iterator[int]:
    given = {(c.preprocess or spec.preprocess).size for c in spec.checkpoints}
    yield from sorted(given or {spec.preprocess.size})


if __name__ == "__main__":
    print(page(), end="")

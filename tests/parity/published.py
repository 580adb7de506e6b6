"""What timm and open_clip say of the checkpoints that we list, without running either.

``python -m tests.parity.published TIMM OPEN_CLIP`` reads the folders of both packages,
installed or unpacked from their wheels, and writes published.json. It is of timm 1.0.31 and
open_clip 3.3.0.
"""

from __future__ import annotations

import ast
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Union

from ..support.names import image_encoders

FILE = Path(__file__).with_name("published.json")
MODULES = tuple(
    "shvit efficientvit_msra fastvit vision_transformer_hybrid efficientformer "
    "efficientformer_v2 nextvit repvit iformer swiftformer edgenext mobilevit tiny_vit starnet "
    "byobnet convnext mobilenetv3 pvt_v2 metaformer swin_transformer "
    "vision_transformer davit visformer twins vitamin".split()
)
FIELDS = (
    "input_size mean std crop_pct crop_mode interpolation license hf_hub_id num_classes"
).split()
OPEN_CLIP = {
    "mobileclip_s1": "MobileCLIP-S1",
    "mobileclip_s2": "MobileCLIP-S2",
    "mobileclip_b": "MobileCLIP-B",
    "mobileclip2_s0": "MobileCLIP2-S0",
    "mobileclip2_s2": "MobileCLIP2-S2",
    "mobileclip2_b": "MobileCLIP2-B",
    "mobileclip2_s3": "MobileCLIP2-S3",
    "mobileclip2_s4": "MobileCLIP2-S4",
    **{f"siglip_base_patch16_{n}": f"ViT-B-16-SigLIP-{n}" for n in (256, 384, 512)},
    "siglip_base_patch16_224": "ViT-B-16-SigLIP",
    "siglip_base_patch16_256_multilingual": "ViT-B-16-SigLIP-i18n-256",
    **{f"siglip2_base_patch16_{n}": f"ViT-B-16-SigLIP2-{n}" for n in (256, 384, 512)},
    "siglip2_base_patch16_224": "ViT-B-16-SigLIP2",
    "siglip2_base_patch32_256": "ViT-B-32-SigLIP2-256",
}


def golden() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def _run(path: Path, known: dict[str, Any]) -> dict[str, Any]:
    """The constants and the makers of configurations (``_cfg`` …) at the top of a file; nothing
    else of it is run, and what cannot be so is left out."""
    for node in ast.parse(path.read_text()).body:
        is_maker = isinstance(node, ast.FunctionDef) and "cfg" in node.name
        if is_maker or isinstance(node, ast.Assign):
            with suppress(NameError, AttributeError, TypeError):
                exec(compile(ast.Module([node], []), str(path), "exec"), known)
    return known


def read_timm(folder: Path) -> dict[str, Any]:
    """By name.tag: what timm's ``get_pretrained_cfg`` gives."""
    names = {"generate_default_cfgs": dict, "Any": Any, "Dict": dict}
    constants = _run(folder / "data/constants.py", {})
    plain = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
    ours = set(image_encoders())
    found = {}
    for module in MODULES:
        table = _run(folder / f"models/{module}.py", constants | names)["default_cfgs"]
        for name, given in table.items():
            cfg = plain | given
            if cfg.get("hf_hub_id", "").endswith("/"):
                cfg["hf_hub_id"] += name
            if name.partition(".")[0] in ours and cfg.get("hf_hub_id"):
                found[name] = {field: cfg.get(field) for field in FIELDS}
    return json.loads(json.dumps(found))  # lists for tuples, as in the file


def read_open_clip(folder: Path) -> dict[str, Any]:
    constants = _run(folder / "constants.py", {})
    known = _run(folder / "pretrained.py", constants | {"Dict": dict, "Union": Union})
    found = {}
    for name, theirs in OPEN_CLIP.items():
        config = json.loads((folder / f"model_configs/{theirs}.json").read_text())
        found[name] = {
            "text": config["text_cfg"],
            "image_size": config["vision_cfg"]["image_size"],
            "embed_dim": config["embed_dim"],
            "logit_bias": config.get("init_logit_bias"),
            "tags": known["_PRETRAINED"][theirs],
        }
    return found


def main() -> None:
    timm, open_clip = map(Path, sys.argv[1:])
    found = {"timm": read_timm(timm), "open_clip": read_open_clip(open_clip)}
    FILE.write_text(json.dumps(found, sort_keys=True).replace("}, ", "},\n") + "\n")


if __name__ == "__main__":
    main()

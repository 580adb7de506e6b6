"""RT-DETR and RT-DETRv2: objects in an image, without suppression of overlapping boxes.

Papers: https://arxiv.org/abs/2304.08069 (RT-DETR), https://arxiv.org/abs/2407.17140 (v2)
Code: https://github.com/lyuwenyu/RT-DETR (Apache-2.0); names follow transformers
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config import FeatureInfo, Preprocess
from ..config.labels import COCO
from ..nn.detr import Detr, DetrConfig
from ..nn.resnet_d import ResNetD
from ..registry import Checkpoint, ModelSpec, Shapes, register_model


@dataclass(frozen=True, kw_only=True)
class RTDetrConfig(DetrConfig):
    dims: tuple[int, ...]  # of the backbone's stages
    depths: tuple[int, ...]
    bottleneck: bool = True

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 2 ** (i + 3)) for i, c in enumerate(self.dims[1:]))

    @property
    def stride(self) -> int:
        return 32


class RTDetr(Detr):
    def __init__(self, config: RTDetrConfig) -> None:
        c = config
        super().__init__(c, ResNetD(c.dims, c.depths, bottleneck=c.bottleneck), c.dims[1:])


_RENAMES = (
    (r"^model\.backbone\.model\.", "backbone."),
    (r"^model\.", ""),
    (r"^(class_embed|bbox_embed)\.", r"decoder.\1."),
    (r"embedder\.embedder\.", "embedder."),
    (r"backbone\.encoder\.stages\.(\d)\.layers\.", r"backbone.stages.\1."),
    (r"\.shortcut\.(1\.)?(convolution|normalization)\.", r".shortcut.project.\2."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".bn."),
    (r"((lateral|downsample)_convs\.\d|\.conv\d)\.norm\.", r"\1.bn."),
    (r"((en|de)coder_input_proj\.\d)\.0\.", r"\1.conv."),
    (r"((en|de)coder_input_proj\.\d)\.1\.", r"\1.bn."),
    # What transformers called layers before its version 5, as files still do.
    (r"encoder\.encoder\.(\d)\.layers\.", r"encoder.aifi.\1.layers."),
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d)\.fc(\d)\.", r"\1.mlp.fc\2."),
)


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Whether there are scales, which follow from the number of points where there are none."""
    return {"own_scale": any(key.endswith("n_points_scale") for key in shapes)}


def _register(size: str, params: int, config: RTDetrConfig, ap: str, ap_v2: str) -> None:
    for version, published in (("", ap), ("_v2", ap_v2)):
        name = f"rtdetr{version}_{size}vd"
        register_model(
            ModelSpec(
                name=name,
                family="rt_detr",
                build=RTDetr,
                config=replace(config, own_scale=bool(version)),
                preprocess=Preprocess(
                    size=640,
                    crop_pct=1,
                    crop_mode="squash",
                    interpolation="bilinear",
                    mean=(0, 0, 0),
                    std=(1, 1, 1),
                ),
                checkpoints=(
                    Checkpoint(
                        tag="coco",
                        repo=f"PekingU/{name}",
                        license="apache-2.0",
                        note=f"{published} AP on COCO as published",
                        labels=COCO,
                    ),
                ),
                renames=_RENAMES,
                unused=r"denoising_class_embed\.|^model\.(anchors|valid_mask)$",
                copies=r"^model\.decoder\.(class|bbox)_embed\.",
                adapt=_adapt,
                params=params,
            )
        )


_LARGE = (256, 512, 1024, 2048)
_register(
    "r18",
    20_163_728,
    RTDetrConfig(
        dims=(64, 128, 256, 512),
        depths=(2, 2, 2, 2),
        bottleneck=False,
        expansion=0.5,
        decoder_depth=3,
    ),
    "46.5",
    "48.1",
)
_register(
    "r34",
    31_420_932,
    RTDetrConfig(
        dims=(64, 128, 256, 512),
        depths=(3, 4, 6, 3),
        bottleneck=False,
        expansion=0.5,
        decoder_depth=4,
    ),
    "48.9",
    "49.9",
)
_register("r50", 42_923_884, RTDetrConfig(dims=_LARGE, depths=(3, 4, 6, 3)), "53.1", "53.4")
_register(
    "r101",
    76_641_004,
    RTDetrConfig(dims=_LARGE, depths=(3, 4, 23, 3), encoder_dim=384, encoder_ffn=2048),
    "54.3",
    "54.3",
)

"""What smaller packages cost: python examples/compare_recipes.py photo.jpg [more.jpg ...]"""

import sys
import tempfile
from pathlib import Path

import ondevice
from converters import export, load_package, verify
from ondevice.weights.output import folder_bytes

model = ondevice.load("shvit_nano.flowers")
with tempfile.TemporaryDirectory() as folder:
    for recipe in ("", "int8", "palette6", "palette4"):
        path = Path(folder) / f"{recipe or 'float16'}.mlpackage"
        export(model, path, recipe=recipe, target="iOS18")
        (logits,) = verify(model, load_package(path), sys.argv[1:]).comparisons
        print(f"{path.stem:8} {folder_bytes(path) / 1e6:5.2f} MB  {logits.psnr_db:5.1f} dB")

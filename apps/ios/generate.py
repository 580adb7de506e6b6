"""Write the project of OnDevice Camera from the list of its files, and the model inside.

python apps/ios/generate.py             # after a file came or went
python apps/ios/generate.py --model     # and export the model anew
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from converters.app.project import ICONS, INFO, Project

HERE = Path(__file__).parent
MODEL = "shvit_nano_cifar10"  # what ModelLibrary.shipped is called
WEIGHTS, RECIPE = "shvit_nano.cifar10", "palette6"

PACKAGE_TYPE = {
    "UTTypeIdentifier": "com.apple.coreml.mlpackage",
    "UTTypeDescription": "Core ML package",
    "UTTypeConformsTo": ["com.apple.package"],
    "UTTypeTagSpecification": {"public.filename-extension": ["mlpackage"]},
}
INFO_PLIST: dict[str, Any] = {
    "CFBundleDisplayName": "OnDevice Camera",
    "LSSupportsOpeningDocumentsInPlace": True,
    "NSCameraUsageDescription": "What the camera sees is classified on this device; nothing "
    "leaves it.",
    "NSPhotoLibraryUsageDescription": "Your photos are searched on this device; nothing leaves "
    "it.",
    "UIFileSharingEnabled": True,
    "UISupportedInterfaceOrientations": ["UIInterfaceOrientationPortrait"],
    "UTImportedTypeDeclarations": [PACKAGE_TYPE],
}


def project(folder: Path = HERE) -> Project:
    """The app around the Swift files that are in ``folder``."""
    swift = sorted(path.name for path in (folder / "App").glob("*.swift"))
    return Project(
        name="OnDeviceCamera",
        bundle_id="dev.ondevice.camera",
        files=(
            *(f"App/{name}" for name in swift),
            f"App/{ICONS}",
            f"App/{INFO}",
            f"Model/{MODEL}.mlpackage",
            f"Model/{MODEL}.golden.json",
        ),
        packages={"../OnDeviceKit": ("OnDeviceCore", "OnDeviceCoreML")},
        info=INFO_PLIST,
    )


def write_model() -> None:
    """Export the model that ships with ondevice, compressed, with its golden image."""
    from converters import export
    from ondevice import create_model

    model = create_model(WEIGHTS, pretrained=True)
    export(model, HERE / f"Model/{MODEL}.mlpackage", recipe=RECIPE, force=True)


if __name__ == "__main__":
    if "--model" in sys.argv[1:]:
        write_model()
    project().write(HERE)

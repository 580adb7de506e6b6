"""A project that is ready to be opened: a package, its labels, its golden image, an app."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.config import RESTRICTED
from ondevice.errors import ConfigError, PackageError
from ondevice.weights.output import replacing

from ..function.golden import golden_of_package, golden_path
from ..program import Program
from .project import ICONS, INFO, Project

TEMPLATE = Path(__file__).parent / "template"
KIT = "OnDeviceKit"
TARGETS = ("OnDeviceCore", "OnDeviceCoreML")  # of the kit, that an app needs
TASKS = (  # what an app shows, by what a package gives
    ("boxes", {"confidence", "coordinates"}),
    ("mask", {"mask"}),
    ("mask", {"mask_image"}),
    ("depth", {"depth"}),
    ("depth", {"depth_grey"}),
    ("depth", {"depth_array"}),
    ("classes", {"logits"}),
)
LEAST_SYSTEM = "17.0"  # that OnDeviceKit runs on
PACK_SYSTEM = "26.0"  # that has managed asset packs


@dataclass(frozen=True)
class App:
    """What an app is called, and where it has its model: in itself or in an asset pack."""

    name: str
    bundle_id: str = ""
    asset_pack: bool = False

    def project(self, model: Sequence[str] = (), system: str = "iOS17") -> Project:
        """The project around the files ``model``, which need a system such as "iOS18".

        Raises ConfigError for a name or a bundle id that is none.
        """
        least = PACK_SYSTEM if self.asset_pack else LEAST_SYSTEM
        swift = ("App", "ContentView", "ModelLocation", "QuickStart", "Results")
        return Project(
            name=self.name,
            bundle_id=self.bundle_id or f"com.example.{_identifier(self.name)}",
            files=(
                *(f"App/{name}.swift" for name in swift),
                f"App/{ICONS}",
                f"App/{INFO}",
                *(() if self.asset_pack else model),
                "README.md",
            ),
            packages={KIT: TARGETS},
            system=max(least, f"{system.removeprefix('iOS')}.0", key=float),
            info={"BAHasManagedAssetPacks": True} if self.asset_pack else {},
        )


def write_app(package: Program, out: str | Path, app: App, *, force: bool = False) -> Path:
    """Write an Xcode project that runs ``package``, a Core ML package of one image, to the
    folder ``out``.

    All of it is there in the end, or nothing. Raises ConfigError for an impossible name,
    PackageError for a package that an app cannot follow, OutputError.
    """
    _check(package)
    with replacing(out, force=force, marker="project.yml") as folder:
        where = folder / "AssetPack" if app.asset_pack else folder
        model = _write_model(where, package)
        if app.asset_pack:
            _write_pack(where, package)
        _write_kit(folder / KIT)
        _write_sources(folder, package, app)
        app.project(model, package.system).write(folder)
    return Path(out)


def _write_model(folder: Path, package: Program) -> list[str]:
    """The package, its golden image, and its labels where it has any: their paths."""
    name = file_name(package)
    path = folder / f"Model/{name}.mlpackage"
    path.parent.mkdir(parents=True)
    shutil.copytree(package.path, path)
    golden_of_package(package).write(golden_path(path))
    files = [path, golden_path(path)]
    if package.labels:
        files.append(path.with_name("labels.txt"))
        files[-1].write_text(
            "".join(f"{label}\n" for label in package.labels), encoding="utf-8"
        )
    return [file.relative_to(folder).as_posix() for file in files]


def file_name(package: Program) -> str:
    """What the package is called in the app: its own name, as Xcode likes names."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", package.path.stem)


def _check(package: Program) -> None:
    """Raises PackageError for what no app of ours can run."""
    problems = []
    if package.path.suffix != ".mlpackage":
        problems.append("is no Core ML package; give a .mlpackage")
    elif package.preprocess is None:
        problems.append("has no preprocessing contract; export the model with ondevice")
    if len(package.inputs) != 1:
        problems.append(f"takes {', '.join(package.inputs) or 'nothing'}, expected one image")
    if not package.arrays:
        problems.append("gives no arrays; export it without --output")
    if problems:
        raise PackageError(f"{package.path} {'; it '.join(problems)}")


def _write_kit(folder: Path) -> None:
    """The Swift package, as far as an app needs it."""
    for target in TARGETS:
        shutil.copytree(kit_sources() / target, folder / "Sources" / target)
    shutil.copy(TEMPLATE / "Package.swift", folder / "Package.swift")


def kit_sources() -> Path:
    """Where the sources of OnDeviceKit are: in an installed package, or in the repository.

    Raises ConfigError if they are in neither.
    """
    installed = Path(__file__).parent / KIT / "Sources"
    repository = Path(__file__).parents[2] / "apps" / KIT / "Sources"
    for folder in (installed, repository):
        if folder.is_dir():
            return folder
    raise ConfigError("the Swift sources of OnDeviceKit are not installed; reinstall ondevice")


def _write_sources(folder: Path, package: Program, app: App) -> None:
    """The app's own files, with the names of the model in them."""
    task = task_of(package)
    sources = {
        "App.swift": "App.swift",
        "ContentView.swift": "ContentView.swift",
        "QuickStart.swift": f"tasks/{task}/QuickStart.swift",
        "Results.swift": f"tasks/{task}/Results.swift",
        "ModelLocation.swift": f"ModelLocation{'AssetPack' if app.asset_pack else ''}.swift",
    }
    words = _words(package, app)
    for name, template in sources.items():
        _fill(TEMPLATE / template, folder / "App" / name, words)
    _fill(TEMPLATE / "README.md", folder / "README.md", words)


def task_of(package: Program) -> str:
    """What an app shows of a package, as a folder of the template has it."""
    given = set(package.arrays)
    if any(output.kind == "dictionary" for output in package.outputs.values()):
        given.add("logits")
    return next((task for task, outputs in TASKS if outputs <= given), "values")


def _words(package: Program, app: App) -> dict[str, str]:
    licence = package.metadata.get("license", "unknown")
    notes = []
    if licence in RESTRICTED:
        notes.append(
            f"The licence {licence} limits what may be done with the weights: read it."
        )
    if app.asset_pack:
        notes.append(
            "The model is in `AssetPack/`, not in the app. Add a Background Download extension "
            "(File > New > Target) and an app group, and pack it with `xcrun ba-package "
            "AssetPack/Manifest.json -o Model.aar`. `AssetPack/contents.json` has its size and "
            "licence."
        )
    return {
        "__NAME__": app.name,
        "__MODELNAME__": package.metadata.get("ondevice.model", package.path.stem),
        "__MODEL__": file_name(package),
        "__PACK__": pack_id(package),
        "__SIZE__": f"{package.size / 1e6:.2f}",
        "__LICENSE__": " ".join(licence.split()),
        "__NOTES__": "\n\n".join(notes),
    }


def _fill(template: Path, path: Path, words: dict[str, str]) -> None:
    text = template.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def pack_id(package: Program) -> str:
    """An asset pack's identifier: letters, digits and dashes."""
    return f"model-{_identifier(package.path.stem)}"


def _write_pack(folder: Path, package: Program) -> None:
    """The manifest that Apple's ba-package reads, and what people want to know beside it."""
    manifest: dict[str, Any] = {
        "assetPackID": pack_id(package),
        "downloadPolicy": {"onDemand": {}},
        "fileSelectors": [{"directory": "Model"}],
        "platforms": ["iOS"],
    }
    contents = {
        "assetPackID": pack_id(package),
        "license": package.metadata.get("license", "unknown"),
        "bytes": sum(_sizes(folder / "Model").values()),
        "files": _sizes(folder / "Model"),
    }
    for name, said in (("Manifest.json", manifest), ("contents.json", contents)):
        (folder / name).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of each file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.parent)): path.stat().st_size for path in files}


def _identifier(name: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return kept.strip("-") or "app"

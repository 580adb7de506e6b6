"""An Xcode project as an independent library reads it."""

from __future__ import annotations

from pathlib import Path

from pbxproj import XcodeProject


def opened(folder: Path) -> XcodeProject:
    """The one project in a folder."""
    (bundle,) = folder.glob("*.xcodeproj")
    return XcodeProject.load(str(bundle / "project.pbxproj"))


def paths(xcode: XcodeProject) -> dict[str, str]:
    """The path of every file and folder in the project's groups, by identifier."""
    found: dict[str, str] = {}

    def walk(key: str, above: str) -> None:
        item = xcode.objects[key]
        here = "/".join(filter(None, (above, getattr(item, "path", ""))))
        if item["sourceTree"] == "<group>":
            found[key] = here
        for child in item["children"] if item.isa == "PBXGroup" else ():
            walk(child, here)

    walk(xcode.objects[xcode["rootObject"]]["mainGroup"], "")
    return found


def in_phase(xcode: XcodeProject, phase: str) -> set[str]:
    """What a phase builds: paths, or identifiers of products."""
    (found,) = xcode.objects.get_objects_in_section(f"PBX{phase}BuildPhase")
    files = [xcode.objects[key] for key in found.files]
    known = paths(xcode)
    return {known[f["fileRef"]] if "fileRef" in f else f["productRef"] for f in files}


def settings(xcode: XcodeProject) -> dict[str, str]:
    """The build settings of the one target."""
    (target,) = xcode.objects.get_targets()
    config, *_ = xcode.objects.get_configurations_on_targets(target.name)
    return config.buildSettings

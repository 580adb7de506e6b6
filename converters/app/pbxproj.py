"""An Xcode project as text: the property list ``project.pbxproj``, and its shared scheme.

The format is Apple's old-style property list: objects by identifier, which refer to each
other. Identifiers come from what they name, so that the same project gives the same file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from xml.sax.saxutils import quoteattr

from .project import KINDS, Project

OBJECT_VERSION = "60"  # Xcode 15, the first with local Swift packages
XCODE = "1600"  # the first with Swift 6

# The project's settings; the target has its own in ``Project.settings``.
COMMON = {
    "ALWAYS_SEARCH_USER_PATHS": "NO",
    "CLANG_ENABLE_MODULES": "YES",
    "CLANG_ENABLE_OBJC_ARC": "YES",
    "ENABLE_USER_SCRIPT_SANDBOXING": "YES",
    "SDKROOT": "iphoneos",
    "SWIFT_VERSION": "6.0",
}
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "Debug": {
        "DEBUG_INFORMATION_FORMAT": "dwarf",
        "ENABLE_TESTABILITY": "YES",
        "ONLY_ACTIVE_ARCH": "YES",
        "SWIFT_ACTIVE_COMPILATION_CONDITIONS": "DEBUG",
        "SWIFT_OPTIMIZATION_LEVEL": "-Onone",
    },
    "Release": {
        "DEBUG_INFORMATION_FORMAT": "dwarf-with-dsym",
        "SWIFT_COMPILATION_MODE": "wholemodule",
        "VALIDATE_PRODUCT": "YES",
    },
}


class _Objects:
    """The objects of one project, by identifier."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, isa: str, about: str, **fields: Any) -> str:
        """A new object about something; its identifier."""
        key = identifier(self.project.name, isa, about)
        self.found[key] = {"isa": isa, **fields}
        return key


def identifier(*words: str) -> str:
    """24 hexadecimal digits, as Xcode has them."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:24].upper()


def pbxproj(project: Project) -> str:
    """The text of ``project.pbxproj``."""
    objects = _Objects(project)
    root = _project(objects)
    document = {
        "archiveVersion": "1",
        "classes": {},
        "objectVersion": OBJECT_VERSION,
        "objects": dict(sorted(objects.found.items(), key=lambda item: (item[1]["isa"], item))),
        "rootObject": root,
    }
    return f"// !$*UTF8*$!\n{_text(document)}\n"


def _project(objects: _Objects) -> str:
    project = objects.project
    product = objects.add(
        "PBXFileReference",
        "product",
        explicitFileType="wrapper.application",
        includeInIndex="0",
        path=f"{project.name}.app",
        sourceTree="BUILT_PRODUCTS_DIR",
    )
    files = {path: _file(objects, path) for path in project.files}
    products = objects.add(
        "PBXGroup", "products", children=[product], name="Products", sourceTree="<group>"
    )
    packages = {p: _package(objects, p) for p in project.packages}
    target = _target(objects, product, files, packages)
    return objects.add(
        "PBXProject",
        "project",
        attributes={"BuildIndependentTargetsInParallel": "1", "LastUpgradeCheck": XCODE},
        buildConfigurationList=_configurations(objects, "project", COMMON, CONFIGURATIONS),
        compatibilityVersion="Xcode 15.0",
        developmentRegion="en",
        hasScannedForEncodings="0",
        knownRegions=["en", "Base"],
        mainGroup=_group(objects, PurePosixPath(), files, [products]),
        packageReferences=list(packages.values()),
        productRefGroup=products,
        projectDirPath="",
        projectRoot="",
        targets=[target],
    )


def _file(objects: _Objects, path: str) -> str:
    pure = PurePosixPath(path)
    kind = KINDS[pure.suffix].file_type
    return objects.add(
        "PBXFileReference",
        path,
        lastKnownFileType=kind,
        path=pure.name,
        sourceTree="<group>",
    )


def _group(
    objects: _Objects, folder: PurePosixPath, files: Mapping[str, str], more: Sequence[str] = ()
) -> str:
    """The group of a folder, with the groups of those inside: folders first."""
    inside = {p: f for p, f in files.items() if folder in PurePosixPath(p).parents}
    depth = len(folder.parts)
    folders = dict.fromkeys(
        folder / PurePosixPath(p).parts[depth]
        for p in inside
        if len(PurePosixPath(p).parts) > depth + 1
    )
    own = [f for p, f in inside.items() if PurePosixPath(p).parent == folder]
    where = {"path": folder.name} if folder.name else {}
    return objects.add(
        "PBXGroup",
        f"group {folder}",
        children=[*(_group(objects, each, inside) for each in folders), *own, *more],
        sourceTree="<group>",
        **where,
    )


def _package(objects: _Objects, path: str) -> str:
    return objects.add("XCLocalSwiftPackageReference", path, relativePath=path)


def _target(
    objects: _Objects, product: str, files: Mapping[str, str], packages: Mapping[str, str]
) -> str:
    project = objects.project
    products = {
        name: objects.add(
            "XCSwiftPackageProductDependency", name, package=packages[path], productName=name
        )
        for path, names in project.packages.items()
        for name in names
    }
    return objects.add(
        "PBXNativeTarget",
        "target",
        buildConfigurationList=_configurations(
            objects, "target", project.settings, {name: {} for name in CONFIGURATIONS}
        ),
        buildPhases=_phases(objects, files, products),
        buildRules=[],
        dependencies=[],
        name=project.name,
        packageProductDependencies=list(products.values()),
        productName=project.name,
        productReference=product,
        productType="com.apple.product-type.application",
    )


def _phases(
    objects: _Objects, files: Mapping[str, str], products: Mapping[str, str]
) -> list[str]:
    """What compiles, links and copies, in this order."""
    built = {
        phase: [
            objects.add("PBXBuildFile", path, fileRef=key)
            for path, key in files.items()
            if KINDS[PurePosixPath(path).suffix].phase == phase
        ]
        for phase in ("Sources", "Resources")
    }
    linked = [objects.add("PBXBuildFile", n, productRef=key) for n, key in products.items()]
    phases = {
        "Sources": built["Sources"],
        "Frameworks": linked,
        "Resources": built["Resources"],
    }
    return [
        objects.add(
            f"PBX{name}BuildPhase",
            "phase",
            buildActionMask="2147483647",
            files=listed,
            runOnlyForDeploymentPostprocessing="0",
        )
        for name, listed in phases.items()
    ]


def _configurations(
    objects: _Objects,
    of: str,
    shared: Mapping[str, str],
    each: Mapping[str, Mapping[str, str]],
) -> str:
    """A list of build configurations, each with the shared settings and its own."""
    listed = [
        objects.add(
            "XCBuildConfiguration",
            f"{of} {name}",
            buildSettings=dict(sorted({**shared, **own}.items())),
            name=name,
        )
        for name, own in each.items()
    ]
    return objects.add(
        "XCConfigurationList",
        of,
        buildConfigurations=listed,
        defaultConfigurationIsVisible="0",
        defaultConfigurationName="Release",
    )


def _text(value: Any, indent: int = 0) -> str:
    """A value as an old-style property list has it."""
    tab, inner = "\t" * indent, "\t" * (indent + 1)
    if isinstance(value, Mapping):
        lines = (f"{inner}{_text(k)} = {_text(v, indent + 1)};\n" for k, v in value.items())
        return f"{{\n{''.join(lines)}{tab}}}"
    if isinstance(value, list):
        lines = (f"{inner}{_text(v, indent + 1)},\n" for v in value)
        return f"(\n{''.join(lines)}{tab})"
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def scheme(project: Project) -> str:
    """The text of the shared scheme, by which the project is built and run."""
    attributes = {
        "BuildableIdentifier": "primary",
        "BlueprintIdentifier": identifier(project.name, "PBXNativeTarget", "target"),
        "BuildableName": f"{project.name}.app",
        "BlueprintName": project.name,
        "ReferencedContainer": f"container:{project.name}.xcodeproj",
    }
    target = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    runnable = (
        f"<BuildableProductRunnable><BuildableReference {target}/></BuildableProductRunnable>"
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Scheme LastUpgradeVersion="{XCODE}" version="1.7">
  <BuildAction parallelizeBuildables="YES" buildImplicitDependencies="YES">
    <BuildActionEntries>
      <BuildActionEntry buildForTesting="YES" buildForRunning="YES" buildForProfiling="YES"
          buildForArchiving="YES" buildForAnalyzing="YES">
        <BuildableReference {target}/>
      </BuildActionEntry>
    </BuildActionEntries>
  </BuildAction>
  <LaunchAction buildConfiguration="Debug">{runnable}</LaunchAction>
  <ProfileAction buildConfiguration="Release">{runnable}</ProfileAction>
  <AnalyzeAction buildConfiguration="Debug"/>
  <ArchiveAction buildConfiguration="Release" revealArchiveInOrganizer="YES"/>
</Scheme>
"""

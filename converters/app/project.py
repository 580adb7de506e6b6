"""What is in an app's project: one value, from which all of its files are written."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from ondevice.errors import ConfigError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,49}")
BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
INFO = "Info.plist"
ICONS = "Assets.xcassets"


class Kind(NamedTuple):
    """What Xcode calls files of a suffix, and the phase that builds them, if any."""

    file_type: str
    phase: str


# By suffix. Xcode compiles a package in the phase of the sources; as a resource it would only
# copy it.
KINDS = {
    ".swift": Kind("sourcecode.swift", "Sources"),
    ".mlpackage": Kind("folder.mlpackage", "Sources"),
    ".xcassets": Kind("folder.assetcatalog", "Resources"),
    ".xcprivacy": Kind("text.xml", "Resources"),
    ".json": Kind("text.json", "Resources"),
    ".txt": Kind("text", "Resources"),
    ".plist": Kind("text.plist.xml", ""),
    ".md": Kind("net.daringfireball.markdown", ""),
    ".yml": Kind("text.yaml", ""),
}


@dataclass(frozen=True)
class Project:
    """An app for iPhone and iPad.

    ``files`` are paths from the project's folder, ``packages`` products by the path of a local
    Swift package, ``system`` the oldest iOS, ``info`` what ``Info.plist`` has of its own.

    Raises ConfigError for a name or a bundle id that is none.
    """

    name: str
    bundle_id: str
    files: tuple[str, ...]
    packages: Mapping[str, tuple[str, ...]]
    system: str = "17.0"
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [
            f"{what} {given!r} is not like {example}"
            for what, given, form, example in (
                ("name", self.name, NAME, "'My App': letters, digits, spaces, - and _"),
                ("bundle id", self.bundle_id, BUNDLE_ID, "'com.example.my-app'"),
            )
            if not form.fullmatch(given)
        ]
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def info_path(self) -> str:
        """Where ``Info.plist`` is."""
        return next(p for p in self.files if PurePosixPath(p).name == INFO)

    @property
    def settings(self) -> dict[str, str]:
        """The target's build settings."""
        return {
            "ASSETCATALOG_COMPILER_APPICON_NAME": "AppIcon",
            "ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME": "AccentColor",
            "CODE_SIGN_STYLE": "Automatic",
            "COREML_CODEGEN_LANGUAGE": "None",  # OnDeviceKit opens the package
            "CURRENT_PROJECT_VERSION": "1",
            "ENABLE_PREVIEWS": "YES",
            "GENERATE_INFOPLIST_FILE": "NO",
            "INFOPLIST_FILE": self.info_path,
            "IPHONEOS_DEPLOYMENT_TARGET": self.system,
            "LD_RUNPATH_SEARCH_PATHS": "$(inherited) @executable_path/Frameworks",
            "MARKETING_VERSION": "1.0",
            "PRODUCT_BUNDLE_IDENTIFIER": self.bundle_id,
            "PRODUCT_NAME": "$(TARGET_NAME)",
            "SUPPORTED_PLATFORMS": "iphoneos iphonesimulator",
            "SWIFT_EMIT_LOC_STRINGS": "YES",
            "TARGETED_DEVICE_FAMILY": "1,2",
        }

    def info_plist(self) -> bytes:
        """``Info.plist``."""
        found = {
            "CFBundleDevelopmentRegion": "$(DEVELOPMENT_LANGUAGE)",
            "CFBundleDisplayName": self.name,
            "CFBundleExecutable": "$(EXECUTABLE_NAME)",
            "CFBundleIdentifier": "$(PRODUCT_BUNDLE_IDENTIFIER)",
            "CFBundleInfoDictionaryVersion": "6.0",
            "CFBundleName": "$(PRODUCT_NAME)",
            "CFBundlePackageType": "$(PRODUCT_BUNDLE_PACKAGE_TYPE)",
            "CFBundleShortVersionString": "$(MARKETING_VERSION)",
            "CFBundleVersion": "$(CURRENT_PROJECT_VERSION)",
            "LSRequiresIPhoneOS": True,
            "UIApplicationSceneManifest": {"UIApplicationSupportsMultipleScenes": False},
            "UILaunchScreen": {},
            "UISupportedInterfaceOrientations": [
                "UIInterfaceOrientationPortrait",
                "UIInterfaceOrientationLandscapeLeft",
                "UIInterfaceOrientationLandscapeRight",
            ],
        }
        return plistlib.dumps({**found, **self.info})

    def xcodegen(self) -> str:
        """``project.yml``, for those who write their projects with XcodeGen."""
        return yaml.safe_dump(
            {
                "name": self.name,
                "options": {"deploymentTarget": {"iOS": self.system}},
                "settings": {"SWIFT_VERSION": "6.0"},
                "packages": {PurePosixPath(p).name: {"path": p} for p in self.packages},
                "targets": {self.name: self._target()},
            },
            sort_keys=False,
        )

    def _target(self) -> dict[str, Any]:
        phases = {p: KINDS[PurePosixPath(p).suffix].phase.lower() for p in self.files}
        return {
            "type": "application",
            "platform": "iOS",
            "sources": [
                {"path": path, "buildPhase": phase or "none"} for path, phase in phases.items()
            ],
            "settings": {"base": self.settings},
            "dependencies": [
                {"package": PurePosixPath(path).name, "product": product}
                for path, products in self.packages.items()
                for product in products
            ],
        }

    def write(self, folder: Path) -> None:
        """Write ``Info.plist``, the project, its scheme, ``project.yml``, an icon."""
        from .assets import write_assets
        from .pbxproj import pbxproj, scheme

        bundle = folder / f"{self.name}.xcodeproj"
        texts = {
            bundle / "project.pbxproj": pbxproj(self),
            bundle / "xcshareddata/xcschemes" / f"{self.name}.xcscheme": scheme(self),
            folder / "project.yml": self.xcodegen(),
        }
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        info = folder / self.info_path
        info.parent.mkdir(parents=True, exist_ok=True)
        info.write_bytes(self.info_plist())
        for catalog in (p for p in self.files if PurePosixPath(p).name == ICONS):
            write_assets(folder / catalog)

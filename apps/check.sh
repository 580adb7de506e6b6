#!/usr/bin/env bash
# Check all Swift sources where there is no Xcode: parse them, then check those that use Apple's
# frameworks against the declarations in stubs/. On arguments, folders of other apps, as
# `ondevice app` writes them, are checked instead of apps/ios.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v swiftc >/dev/null || { echo "no swiftc: nothing was checked" >&2; exit 3; }
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# In the order in which they import each other.
stubs="CoreGraphics ImageIO CoreVideo CoreML Vision UIKit AVFoundation Photos
    UniformTypeIdentifiers System BackgroundAssets SwiftUI PhotosUI CoreAI"
flags=(-swift-version 6 -warnings-as-errors -I "$built" -module-cache-path "$built/cache")

module() { # NAME, then sources
    local name=$1
    shift
    swiftc -typecheck -parse-as-library -module-name "$name" "${flags[@]}" "$@"
    swiftc -emit-module -parse-as-library -module-name "$name" "${flags[@]}" \
        -emit-module-path "$built/$name.swiftmodule" "$@"
}

for stub in $stubs; do
    [ -f "$here/stubs/$stub.swift" ] || continue
    swiftc -emit-module -parse-as-library -swift-version 5 -suppress-warnings -module-name "$stub" \
        -I "$built" -module-cache-path "$built/cache" \
        -emit-module-path "$built/$stub.swiftmodule" "$here/stubs/$stub.swift"
done

sources="$here/OnDeviceKit/Sources"
module OnDeviceCore "$sources"/OnDeviceCore/*.swift
module OnDeviceCoreML "$sources"/OnDeviceCoreML/*.swift
[ -f "$here/stubs/CoreAI.swift" ] && module OnDeviceCoreAI "$sources"/OnDeviceCoreAI/*.swift

for app in "${@:-$here/ios}"; do
    swiftc -frontend -parse "$app"/App/*.swift
    module App "$app"/App/*.swift
    echo "checked: $app"
done

// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "OnDeviceKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "OnDeviceCore", targets: ["OnDeviceCore"]),
        .library(name: "OnDeviceCoreML", targets: ["OnDeviceCoreML"]),
    ],
    targets: [
        .target(name: "OnDeviceCore"),
        .target(name: "OnDeviceCoreML", dependencies: ["OnDeviceCore"]),
    ]
)

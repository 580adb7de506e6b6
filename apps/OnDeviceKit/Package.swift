// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "OnDeviceKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "OnDeviceCore", targets: ["OnDeviceCore"]),
        .library(name: "OnDeviceCoreML", targets: ["OnDeviceCoreML"]),
        .library(name: "OnDeviceCoreAI", targets: ["OnDeviceCoreAI"]),
        .executable(name: "ondevice-swift", targets: ["ondevice-swift"]),
    ],
    targets: [
        .target(name: "OnDeviceCore"),
        .target(name: "OnDeviceCoreML", dependencies: ["OnDeviceCore"]),
        .target(name: "OnDeviceCoreAI", dependencies: ["OnDeviceCore"]),
        .executableTarget(name: "ondevice-swift", dependencies: ["OnDeviceCore"]),
        .testTarget(
            name: "OnDeviceCoreTests",
            dependencies: ["OnDeviceCore"],
            resources: [.copy("Goldens")]
        ),
        .testTarget(name: "OnDeviceCoreMLTests", dependencies: ["OnDeviceCoreML"]),
    ]
)

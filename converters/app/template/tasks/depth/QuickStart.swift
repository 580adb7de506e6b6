import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The name of the package in this app.
let modelName = "__MODEL__"

/// The depth of what the model sees of a photo, dark to light: all that another app has to copy,
/// besides the package and OnDeviceKit.
func depth(_ photo: URL) async throws -> RGBImage {
    let model = try await Model(ModelFiles(bundled: modelName))
    return try Coloring.image(depth: try await model.depth(for: model.prepare(photo)))
}

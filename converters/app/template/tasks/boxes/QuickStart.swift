import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The name of the package in this app.
let modelName = "__MODEL__"

/// The things in a photo, with boxes in its own pixels: all that another app has to copy, besides
/// the package and OnDeviceKit.
func detect(_ photo: URL) async throws -> [Detection] {
    let model = try await Model(ModelFiles(bundled: modelName))
    return try await model.detections(of: photo)
}

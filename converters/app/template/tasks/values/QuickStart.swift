import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The name of the package in this app.
let modelName = "__MODEL__"

/// What the model computes of a photo, by name: all that another app has to copy, besides the
/// package and OnDeviceKit.
func values(of photo: URL) async throws -> [String: Tensor] {
    let model = try await Model(ModelFiles(bundled: modelName))
    return try await model.outputs(of: photo)
}

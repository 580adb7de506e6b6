import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The name of the package in this app.
let modelName = "__MODEL__"

/// The most likely classes of a photo: all that another app has to copy, besides the package
/// and OnDeviceKit.
func classify(_ photo: URL, count: Int = 5) async throws -> [Prediction] {
    let model = try await Model(ModelFiles(bundled: modelName))
    return try await model.predictions(of: photo, count: count)
}

import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The name of the package in this app.
let modelName = "__MODEL__"

/// What the model sees of a photo, each class in its colour over it: all that another app has to
/// copy, besides the package and OnDeviceKit.
func segment(_ photo: URL) async throws -> RGBImage {
    let model = try await Model(ModelFiles(bundled: modelName))
    let pixels = try model.prepare(photo)
    let mask = try await model.mask(for: pixels)  // the class of each of these pixels
    let colors = try Coloring.image(classes: mask, width: pixels.width, height: pixels.height)
    return try pixels.overlaid(with: colors, opacity: 0.6)
}

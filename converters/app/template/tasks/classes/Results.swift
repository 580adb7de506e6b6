import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The most likely classes, a line each.
func results(of pixels: RGBImage, by model: Model) async throws -> Results {
    let found = try await model.predictions(for: pixels)
    return Results(
        image: pixels, rows: found.map { Row(title: $0.label, value: percent($0.score)) })
}

import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// A box and a line for each thing.
func results(of pixels: RGBImage, by model: Model) async throws -> Results {
    let found = try await model.detections(for: pixels)
    return Results(
        image: pixels.outlined(found),
        rows: found.map { Row(title: $0.label, value: percent($0.score)) })
}

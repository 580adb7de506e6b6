import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The depth in colours, and its range.
func results(of pixels: RGBImage, by model: Model) async throws -> Results {
    let depth = try await model.depth(for: pixels)
    let range = [("least", depth.values.min()), ("most", depth.values.max())]
    return Results(
        image: try Coloring.image(depth: depth),
        rows: range.map { Row(title: $0, value: ($1 ?? .nan).formatted()) })
}

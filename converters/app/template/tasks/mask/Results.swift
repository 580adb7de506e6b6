import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// Each class in its colour, and a line with the part of the image that it covers.
func results(of pixels: RGBImage, by model: Model) async throws -> Results {
    let mask = try await model.mask(for: pixels)
    let colors = try Coloring.image(classes: mask, width: pixels.width, height: pixels.height)
    let labels = model.info.labels
    return Results(
        image: try pixels.overlaid(with: colors, opacity: 0.6),
        rows: Coloring.shares(mask).map {
            let isNamed = labels.indices.contains($0.index)
            let title = isNamed ? labels[$0.index] : "class \($0.index)"
            return Row(title: title, value: percent($0.share))
        })
}

import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// The first values of each output.
func results(of pixels: RGBImage, by model: Model) async throws -> Results {
    let found = try await model.outputs(for: pixels).sorted { $0.key < $1.key }
    return Results(
        image: pixels,
        rows: found.map {
            let first = $0.value.values.prefix(3).map { $0.formatted() }.joined(separator: ", ")
            return Row(title: "\($0.key) \($0.value.shape)", value: "\(first) …")
        })
}

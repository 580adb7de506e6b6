import Testing

@testable import OnDeviceCore

/// Gives what it is told to, and nothing else.
private struct Told: ImageModel {
    let name = "told"
    var contract: Contract
    var labels: [String] = []
    var metadata: [String: String] = [:]
    var given: [String: Tensor] = [:]

    init(_ given: [String: Tensor] = [:]) {
        contract = Contract()
        (contract.size, contract.cropPct, contract.cropMode) = (8, 1, .squash)
        self.given = given
    }

    func outputs(for pixels: RGBImage) async throws -> [String: Tensor] { given }
}

private func tensor(_ shape: [Int], _ values: [Float]) throws -> Tensor {
    try Tensor(shape: shape, values: values)
}

/// The sentence of the error that `body` throws; a failure if it throws none.
private func sentence(_ body: () async throws -> Void) async -> String {
    do {
        try await body()
    } catch let error as OnDeviceError {
        return error.message
    } catch {
        Issue.record("another error: \(error)")
        return ""
    }
    Issue.record("no error")
    return ""
}

private let pixels = RGBImage(width: 8, height: 8, color: [1, 2, 3])

@Test func thingsAreInThePixelsOfThePhotoThatIsTurned() async throws {
    var model = Told([
        "coordinates": try tensor([1, 2, 4], [0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1]),
        "confidence": try tensor([1, 2, 2], [0.1, 0.9, 0.2, 0.7]),
    ])
    model.labels = ["cat", "dog"]
    let photo = RGBImage(width: 40, height: 20, color: [1, 2, 3])
    let found = try await model.detections(of: photo, orientation: .right)  // 20 x 40, upright
    #expect(found.map(\.label) == ["dog", "dog"])
    #expect(found[0].box == Box(left: 0, top: 10, right: 10, bottom: 30))
    let square = try await model.detections(for: pixels)
    #expect(square[0].box == Box(left: 0, top: 2, right: 4, bottom: 6))
    model.metadata = [BoxDecoder.metadataKey: "0.2"]
    #expect(try await model.detections(for: pixels).count == 1)
    model.labels = ["cat"]
    #expect(await sentence { _ = try await model.detections(for: pixels) }.contains("labels"))
}

@Test func masksAndDepthAreReadByTheirNames() async throws {
    let values = try tensor([1, 1, 1, 3], [0, 2, 1])
    for name in ["mask", "mask_image"] {
        #expect(try await Told([name: values]).mask(for: pixels) == [0, 2, 1])
    }
    for name in ["depth", "depth_grey", "depth_array"] {
        #expect(try await Told([name: values]).depth(for: pixels) == values)
    }
    let vector = try tensor([1, 2], [3, 4])
    #expect(try await Told(["embedding": vector]).embedding(for: pixels) == [0.6, 0.8])
}

@Test func whatAModelDoesNotGiveIsSaid() async {
    let model = Told()
    #expect(await sentence { _ = try await model.detections(for: pixels) }.contains("no boxes"))
    #expect(await sentence { _ = try await model.mask(for: pixels) }.contains("no mask"))
    #expect(await sentence { _ = try await model.depth(for: pixels) }.contains("no depth"))
    #expect(await sentence { _ = try await model.embedding(for: pixels) }.contains("embedding"))
}

import Foundation
import Testing

@testable import OnDeviceCore

/// A golden file of what this package computes, with an output that is given.
private func golden(
    change: (inout [String: Any]) -> Void = { _ in }
) throws -> Data {
    var contract = Contract()
    contract.size = 12
    let image = try noise(width: 20, height: 15)
    let pixels = try Preprocessor(contract).pixels(of: image)
    let values = Preprocessor(contract).normalized(pixels).values
    let json = try JSONSerialization.jsonObject(with: Data(StableJSON.text(contract).utf8))
    func table(_ image: RGBImage) -> [String: Any] {
        [
            "width": image.width, "height": image.height,
            "rgb": Data(image.pixels).base64EncodedString(),
        ]
    }
    var found: [String: Any] = [
        "version": 1, "model": "toy", "image": table(image), "contract": json,
        "pixels": table(pixels),
        "normalized": [
            "positions": [0, 200, 431], "values": [values[0], values[200], values[431]],
        ],
        "outputs": ["logits": ["shape": [1, 3], "values": [1, -4, 2]]], "tolerance": 0.05,
    ]
    change(&found)
    return try JSONSerialization.data(withJSONObject: found)
}

private func logits(_ values: [Float]) throws -> [String: Tensor] {
    ["logits": try Tensor(shape: [1, 3], values: values)]
}

@Test func aCheckThatAgreesPasses() async throws {
    let check = SelfCheck(try Golden(json: golden()))
    let report = try await check.run { _ in try logits([1.1, -4, 1.9]) }
    #expect(report.passed && report.differs == nil && report.skipped.isEmpty)
    #expect(report.steps.map(\.step) == [.pixels, .normalization, .network])
    let alone = try await check.run()
    #expect(alone.passed && alone.skipped == [.network] && alone.message.contains("network"))
}

@Test func theStepThatDiffersIsNamed() async throws {
    let check = SelfCheck(try Golden(json: golden()))
    let pixels = try await check.run(pixels: { image, contract in
        var other = contract
        other.interpolation = .nearest
        return try Preprocessor(other).pixels(of: image)
    })
    #expect(pixels.differs == .pixels && pixels.message.contains("resized or cropped"))
    let network = try await check.run { _ in try logits([1, -4, 2.3]) }
    #expect(network.differs == .network && network.steps.last?.differing == 1)
    let wrong = try golden { table in
        var samples = table["normalized"] as? [String: Any] ?? [:]
        samples["values"] = [0, 0, 0]
        table["normalized"] = samples
    }
    let normalization = try await SelfCheck(try Golden(json: wrong)).run()
    #expect(normalization.differs == .normalization && normalization.message.contains("Mean"))
}

@Test(arguments: [[Float.nan, -4, 2], [1, -4, .infinity]])
func anOutputThatIsNotFiniteDiffers(_ values: [Float]) async throws {
    let check = SelfCheck(try Golden(json: golden()))
    let report = try await check.run { _ in try logits(values) }
    #expect(!report.passed && report.steps.last?.largest == nil)
    #expect(try StableJSON.text(report).contains("\"differs\" : \"network\""))
}

@Test func anOutputThatIsMissingDiffers() async throws {
    let report = try await SelfCheck(try Golden(json: golden())).run { _ in [:] }
    #expect(report.differs == .network && report.message.contains("missing"))
}

@Test func aGoldenFileThatIsDamagedIsRefused() throws {
    func refused(_ part: String, _ change: (inout [String: Any]) -> Void) throws {
        let data = try golden(change: change)
        let said = message { _ = try Golden(json: data) }
        #expect(said.contains(part))
    }
    try refused("version 2") { $0["version"] = 2 }
    try refused("damaged") { $0["pixels"] = $0["image"] }
    try refused("has no outputs") { $0["outputs"] = nil }
    try refused("shape") { $0["outputs"] = ["x": ["shape": [9], "values": [1]]] }
    try refused("size") { $0["contract"] = ["size": -1] }
    try refused("damaged") { $0["normalized"] = ["positions": [432], "values": [1]] }
    #expect(message { _ = try Golden(json: Data("x".utf8)) }.contains("no JSON"))
}

/// A golden file of a detector: two boxes that it is sure of, one that it is not.
private func detector() throws -> SelfCheck {
    let json = try golden { table in
        table["outputs"] = [
            "coordinates": [
                "shape": [1, 3, 4],
                "values": [0.3, 0.3, 0.2, 0.2, 0.7, 0.7, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1],
            ],
            "confidence": ["shape": [1, 3, 2], "values": [0.9, 0, 0, 0.8, 0.1, 0.1]],
        ]
    }
    return SelfCheck(try Golden(json: json))
}

private func boxes(_ coordinates: [Float], _ confidence: [Float]) throws -> [String: Tensor] {
    [
        "coordinates": try Tensor(shape: [1, 3, 4], values: coordinates),
        "confidence": try Tensor(shape: [1, 3, 2], values: confidence),
    ]
}

@Test func boxesInAnotherOrderAreTheSame() async throws {
    let check = try detector()
    let same = try boxes(
        [0.5, 0.5, 0.1, 0.1, 0.7, 0.7, 0.2, 0.19, 0.3, 0.3, 0.2, 0.2],
        [0.1, 0.1, 0, 0.75, 0.92, 0])
    let report = try await check.run { _ in same }
    #expect(report.passed, "\(report.message)")
    #expect(report.steps.map(\.step) == [.pixels, .normalization, .network])
}

@Test func otherBoxesAreFound() async throws {
    let check = try detector()
    let moved = try boxes(
        [0.3, 0.6, 0.2, 0.2, 0.2, 0.7, 0.2, 0.2, 0.1, 0.5, 0.1, 0.1],
        [0.9, 0, 0, 0.8, 0.1, 0.1])
    let other = try boxes(
        [0.3, 0.3, 0.2, 0.2, 0.7, 0.7, 0.2, 0.2, 0.5, 0.5, 0.1, 0.1],
        [0, 0.9, 0.8, 0, 0.1, 0.1])
    for outputs in [moved, other, [:]] {
        let report = try await check.run { _ in outputs }
        #expect(report.differs == .network && report.message.contains("coordinates"))
    }
}

@Test func aFewPixelsOfAMaskMayBeOfAnotherClass() async throws {
    let mask = (0..<40).map { Float($0 / 20) }
    let json = try golden { table in
        table["outputs"] = ["mask": ["shape": [1, 1, 5, 8], "values": mask]]
    }
    let check = SelfCheck(try Golden(json: json))
    func report(changed count: Int) async throws -> SelfCheck.Report {
        let values = mask.enumerated().map { $0 < count ? 1 - $1 : $1 }
        let found = ["mask": try Tensor(shape: [1, 1, 5, 8], values: values)]
        return try await check.run { _ in found }
    }
    let (few, many) = (try await report(changed: 4), try await report(changed: 5))
    #expect(few.passed && few.steps.last?.differing == 4)
    #expect(many.differs == .network && many.message.contains("5 of 40"))
}

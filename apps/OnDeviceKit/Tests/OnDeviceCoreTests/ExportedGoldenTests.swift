import Foundation
import OnDeviceCore
import Testing

/// The file that `ondevice export` wrote beside the package of OnDevice Camera.
@Suite struct ExportedGoldenTests {
    private let file = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
        .appendingPathComponent("ios/Model/shvit_nano_cifar10.golden.json")

    @Test func pixelsAndNormalizationAreThoseOfPython() async throws {
        let report = try await SelfCheck(Golden(contentsOf: file)).run()
        #expect(report.passed, "\(report.message)")
        #expect(report.skipped == [.network])
    }

    @Test func anotherResizeIsFound() async throws {
        var golden = try Golden(contentsOf: file)
        golden.contract.interpolation = .nearest
        let report = try await SelfCheck(golden).run()
        #expect(report.differs == .pixels)
    }

    @Test func anotherNetworkIsFound() async throws {
        let golden = try Golden(contentsOf: file)
        let wanted = try #require(golden.outputs["logits"])
        let shifted = try Tensor(shape: wanted.shape, values: wanted.values.map { $0 + 1 })
        let report = try await SelfCheck(golden).run(network: { _ in ["logits": shifted] })
        #expect(report.differs == .network)
        let same = try await SelfCheck(golden).run(network: { _ in ["logits": wanted] })
        #expect(same.passed)
    }
}

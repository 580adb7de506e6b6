#if canImport(CoreML)
    import Foundation
    import OnDeviceCore
    import OnDeviceCoreML
    import Testing

    /// The package that is inside OnDevice Camera; a simulator reads it where it lies.
    private let package = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
        .appendingPathComponent("ios/Model/shvit_nano_cifar10.mlpackage")

    @Suite struct ModelTests {
        @Test func computesWhatTheExportComputed() async throws {
            let model = try await Model(ModelFiles(contentsOf: package), units: .cpu)
            let report = try await model.selfCheck()
            #expect(report.passed, "\(report.message)")
            #expect(report.skipped.isEmpty)
        }

        @Test func namesTheClassesOfAPhoto() async throws {
            let model = try await Model(ModelFiles(contentsOf: package), units: .cpu)
            #expect(model.info.labels.count == 10)
            let grey = try RGBImage(
                width: 50, height: 40, pixels: [UInt8](repeating: 90, count: 6000))
            let found = try await model.predictions(of: grey, count: 3)
            #expect(found.count == 3)
            #expect(found.map(\.score) == found.map(\.score).sorted(by: >))
        }

        @Test func measuresLatencyAndPlacement() async throws {
            let files = try ModelFiles(contentsOf: package)
            var bench = Bench()
            bench.runs = 4
            let unit = try await bench.unit(.cpu, of: files)
            #expect(unit.median > 0)
            #expect(unit.fallenOff.isEmpty)
        }

        @Test func refusesWhatIsNoPackage() throws {
            let missing = package.deletingLastPathComponent().appendingPathComponent(
                "x.mlpackage")
            #expect(throws: OnDeviceError.self) { try ModelFiles(contentsOf: missing) }
            #expect(throws: OnDeviceError.self) {
                try ModelFiles(contentsOf: package.appendingPathComponent("Manifest.json"))
            }
        }
    }

    @Suite struct VisionCropTests {
        private func contract(_ change: (inout Contract) -> Void) -> Contract {
            var contract = Contract()
            contract.cropPct = 1
            change(&contract)
            return contract
        }

        @Test func offersTheCropsThatVisionHas() throws {
            let center = try VisionCrop.option(for: contract { $0.cropMode = .center })
            let squash = try VisionCrop.option(for: contract { $0.cropMode = .squash })
            #expect(center == .centerCrop)
            #expect(squash == .scaleFill)
        }

        @Test func saysWhyItRefusesOthers() {
            for other in [
                contract { $0.cropPct = 0.875 }, contract { $0.cropMode = .pad },
                contract { $0.cropMode = .border }, contract { $0.sourceSize = 32 },
            ] {
                #expect(throws: OnDeviceError.self) { try VisionCrop.option(for: other) }
            }
        }
    }
#endif

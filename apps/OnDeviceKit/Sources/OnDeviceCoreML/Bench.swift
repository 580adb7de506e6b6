#if canImport(CoreML)
    import CoreML
    import Foundation
    import OnDeviceCore

    /// What was measured of a package on this device, in the form that `ondevice verify
    /// --report` reads: milliseconds, and operations by processor.
    public struct DeviceReport: Codable, Sendable, Hashable {
        /// One choice of compute units.
        public struct Unit: Codable, Sendable, Hashable {
            /// As ``ComputeUnits`` calls it.
            public var units: String
            /// From the compiled package to its first answer.
            public var firstLoad: Double
            /// Of an answer after that: the median, and the range of the middle half.
            public var median, spread: Double
            /// How many operations Core ML prefers to run where.
            public var placement: [String: Int]
            /// The operations that did not stay on the Neural Engine, if that was asked for.
            public var fallenOff: [String]

            enum CodingKeys: String, CodingKey {
                case units, placement
                case firstLoad = "first_load_ms"
                case median = "median_ms"
                case spread = "spread_ms"
                case fallenOff = "fallen_off"
            }
        }

        /// The device and its system.
        public var name: String
        /// The package that was measured.
        public var package: String
        /// Whether the device was in low power mode.
        public var lowPower: Bool
        /// How hot it was.
        public var thermalState: String
        /// What was measured.
        public var units: [Unit]

        enum CodingKeys: String, CodingKey {
            case name, package, units
            case lowPower = "low_power"
            case thermalState = "thermal_state"
        }
    }

    /// Measures latency and placement.
    public struct Bench: Sendable {
        /// Answers before the measured ones, and measured ones.
        public var warmUp = 5, runs = 30

        /// Five answers to warm up, then thirty that count.
        public init() {}

        /// Measures a package on the given compute units, one after the other.
        ///
        /// - Parameter device: a name for the report, such as "iPhone 16, iOS 18.1".
        /// - Throws: ``OnDeviceCore/OnDeviceError``, or `CancellationError`.
        public func report(
            on files: ModelFiles, units: [ComputeUnits] = ComputeUnits.allCases, device: String
        ) async throws -> DeviceReport {
            var measured: [DeviceReport.Unit] = []
            for unit in units {
                measured.append(try await self.unit(unit, of: files))
            }
            let process = ProcessInfo.processInfo
            return DeviceReport(
                name: device, package: files.name, lowPower: process.isLowPowerModeEnabled,
                thermalState: process.thermalState.title, units: measured)
        }

        /// Measures one choice of compute units.
        public func unit(
            _ units: ComputeUnits, of files: ModelFiles
        ) async throws -> DeviceReport.Unit {
            let clock = ContinuousClock()
            let start = clock.now
            let model = try await Model(files, units: units)
            let size = model.info.contract.size
            let grey = [UInt8](repeating: 127, count: size * size * 3)
            let pixels = try RGBImage(width: size, height: size, pixels: grey)
            _ = try await model.outputs(for: pixels)
            let first = (clock.now - start).milliseconds
            for _ in 0..<warmUp { _ = try await model.outputs(for: pixels) }
            var times: [Double] = []
            for _ in 0..<max(runs, 2) {
                try Task.checkCancellation()
                let begin = clock.now
                _ = try await model.outputs(for: pixels)
                times.append((clock.now - begin).milliseconds)
            }
            let placed = try await Self.placement(of: files, units: units)
            return Self.unit(units, first: first, times: times, placed: placed)
        }

        private static func unit(
            _ units: ComputeUnits, first: Double, times: [Double], placed: [(String, String)]
        ) -> DeviceReport.Unit {
            let sorted = times.sorted()
            let quartile = { (share: Double) in sorted[Int(share * Double(sorted.count - 1))] }
            let off = placed.filter { $0.1 != neuralEngine }.map(\.0)
            return DeviceReport.Unit(
                units: units.rawValue, firstLoad: first, median: quartile(0.5),
                spread: quartile(0.75) - quartile(0.25),
                placement: Dictionary(placed.map { ($0.1, 1) }, uniquingKeysWith: +),
                fallenOff: units == .neuralEngine ? off : [])
        }

        private static let neuralEngine = "Neural Engine"

        /// Every operation, as "type name", with where Core ML prefers to run it. Nothing on
        /// systems before iOS 17.4, which do not tell.
        static func placement(
            of files: ModelFiles, units: ComputeUnits
        ) async throws -> [(String, String)] {
            guard #available(iOS 17.4, macOS 14.4, *) else { return [] }
            let plan = try await MLComputePlan.load(
                contentsOf: try await files.compiled(), configuration: units.configuration)
            guard case .program(let program) = plan.modelStructure,
                let main = program.functions["main"] ?? program.functions.values.first
            else { return [] }
            return main.block.operations.compactMap { operation in
                plan.deviceUsage(for: operation).map { usage in
                    let name = operation.outputs.first?.name ?? ""
                    let title = "\(operation.operatorName) \(name)"
                    return (
                        title.trimmingCharacters(in: .whitespaces), processor(usage.preferred)
                    )
                }
            }
        }

        @available(iOS 17.4, macOS 14.4, *)
        private static func processor(_ device: MLComputeDevice) -> String {
            switch device {
            case .cpu: "CPU"
            case .gpu: "GPU"
            case .neuralEngine: neuralEngine
            @unknown default: "another"
            }
        }
    }

    extension Duration {
        /// Milliseconds, with their parts.
        public var milliseconds: Double {
            let (seconds, attoseconds) = components
            return Double(seconds) * 1e3 + Double(attoseconds) / 1e15
        }
    }

    extension ProcessInfo.ThermalState {
        /// A word for reports.
        public var title: String {
            switch self {
            case .nominal: "nominal"
            case .fair: "fair"
            case .serious: "serious"
            case .critical: "critical"
            @unknown default: "unknown"
            }
        }
    }
#endif

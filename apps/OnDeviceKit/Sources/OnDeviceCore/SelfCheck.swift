/// Whether this device computes what the model computed where it was exported.
///
/// Each step starts from what the golden file has, so that a fault is found where it is:
/// pixels, normalization or network.
public struct SelfCheck: Sendable {
    /// A step of the check, in their order.
    public enum Step: String, Codable, Sendable, CaseIterable {
        /// Resizing and cropping.
        case pixels
        /// Mean and standard deviation.
        case normalization
        /// What the model computes.
        case network
    }

    /// What one step found.
    public struct Result: Codable, Sendable, Hashable {
        /// The step.
        public var step: Step
        /// The output that was compared, if the step is the network.
        public var output: String?
        /// Whether the values agree.
        public var passed: Bool
        /// How many values differ by more than is fine; all, if there are more or fewer of them.
        public var differing: Int
        /// How many were compared.
        public var count: Int
        /// The largest difference; nothing if values are missing or not finite.
        public var largest: Float?
        /// The largest difference that is fine, in the same units.
        public var tolerance: Float
    }

    /// The findings, as they are written as JSON.
    public struct Report: Codable, Sendable, Hashable {
        /// The version of this format.
        public var version = 1
        /// Whether all steps that were run agree.
        public var passed: Bool
        /// The first step that differs.
        public var differs: Step?
        /// Steps that were not run, such as the network where there is none.
        public var skipped: [Step]
        /// What each step found.
        public var steps: [Result]
        /// One sentence for the user.
        public var message: String
    }

    /// What is compared with.
    public let golden: Golden

    /// A check against a golden file.
    public init(_ golden: Golden) { self.golden = golden }

    /// Runs all steps.
    ///
    /// - Parameters:
    ///   - network: computes the outputs by name from the golden file's pixels; without it
    ///     that step is skipped.
    ///   - pixels: makes the model's pixels of the golden image; ``Preprocessor`` by default.
    /// - Throws: what `pixels` and `network` throw.
    public func run(
        network: ((RGBImage) async throws -> [String: Tensor])? = nil,
        pixels: (RGBImage, Contract) throws -> RGBImage = {
            try Preprocessor($1).pixels(of: $0)
        }
    ) async throws -> Report {
        let wanted = try golden.pixels.image()
        let made = try pixels(golden.image.image(), golden.contract)
        var steps = [compare(.pixels, floats(made), with: floats(wanted), tolerance: 0)]
        if let samples = golden.normalized {
            let values = Preprocessor(golden.contract).normalized(wanted).values
            let found = samples.positions.map { values[$0] }
            steps.append(compare(.normalization, found, with: samples.values, tolerance: 1e-5))
        }
        if let network, !golden.outputs.isEmpty {
            let outputs = try await network(wanted)
            for (name, expected) in golden.outputs.sorted(by: { $0.key < $1.key }) {
                let largest = expected.values.map(abs).max() ?? 0
                var result = compare(
                    .network, outputs[name]?.values ?? [], with: expected.values,
                    tolerance: golden.tolerance * largest)
                result.output = name
                steps.append(result)
            }
        }
        return report(steps)
    }

    private func floats(_ image: RGBImage) -> [Float] { image.pixels.map(Float.init) }

    private func compare(
        _ step: Step, _ found: [Float], with expected: [Float], tolerance: Float
    ) -> Result {
        let isComplete = found.count == expected.count
        let differences = zip(found, expected).map { abs($0 - $1) }
        let wrong = differences.count { !($0 <= tolerance) }  // NaN is wrong, too
        let isKnown = isComplete && differences.allSatisfy(\.isFinite)
        return Result(
            step: step, passed: isComplete && wrong == 0,
            differing: isComplete ? wrong : expected.count, count: expected.count,
            largest: isKnown ? differences.max() ?? 0 : nil, tolerance: tolerance)
    }

    private func report(_ steps: [Result]) -> Report {
        let wrong = steps.first { !$0.passed }
        let skipped = Step.allCases.filter { step in !steps.contains { $0.step == step } }
        return Report(
            passed: wrong == nil, differs: wrong?.step, skipped: skipped, steps: steps,
            message: wrong.map(sentence) ?? passed(without: skipped))
    }

    private func passed(without skipped: [Step]) -> String {
        let names = skipped.map(\.rawValue).joined(separator: ", ")
        let left = skipped.isEmpty ? "" : " Not checked: \(names)."
        return "The model computes what it did where it was exported.\(left)"
    }

    private func sentence(about result: Result) -> String {
        let few = "\(result.differing) of \(result.count) values differ"
        let most = result.largest.map { ", by up to \($0)" } ?? " or are missing"
        switch result.step {
        case .pixels:
            return "The image is resized or cropped otherwise than in training: \(few)\(most)."
        case .normalization: return "Mean and std are others than in training: \(few)\(most)."
        case .network:
            return
                "The network computes something else (\(result.output ?? "")): \(few)\(most)."
        }
    }
}

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
            steps += compareOutputs(outputs)
        }
        return report(steps)
    }

    private func compareOutputs(_ outputs: [String: Tensor]) -> [Result] {
        var rest = golden.outputs
        var results: [Result] = []
        if let wanted = candidates(rest["coordinates"], rest["confidence"]) {
            (rest["coordinates"], rest["confidence"]) = (nil, nil)
            let found = candidates(outputs["coordinates"], outputs["confidence"])
            results.append(compareBoxes(found ?? [], with: wanted))
        }
        for (name, expected) in rest.sorted(by: { $0.key < $1.key }) {
            let largest = expected.values.map(abs).max() ?? 0
            let isMask = name.hasPrefix("mask")  // classes, or their colours, have no distance
            var result = compare(
                .network, outputs[name]?.values ?? [], with: expected.values,
                tolerance: isMask ? 0.5 : golden.tolerance * largest)
            if isMask, outputs[name]?.values.count == expected.values.count {
                result.passed = result.differing <= expected.values.count / 10
            }
            result.output = name
            results.append(result)
        }
        return results
    }

    /// Every class of every box, the likeliest first: the order of a detector's candidates
    /// means nothing.
    private func candidates(_ boxes: Tensor?, _ scores: Tensor?) -> [Detection]? {
        guard let boxes, let scores else { return nil }
        var decoder = BoxDecoder()
        (decoder.areFractions, decoder.threshold) = (true, -.infinity)
        (decoder.maxOverlap, decoder.limit) = (1, .max)
        return try? decoder.detections(
            boxes: boxes, scores: scores, labels: [], placement: .square(golden.contract.size))
    }

    /// Most boxes that the golden file is sure of, or else its ten likeliest, have to be there:
    /// about as likely, of the same class, around the same thing.
    private func compareBoxes(_ found: [Detection], with all: [Detection]) -> Result {
        let sure = all.count { $0.score >= 0.3 }
        let wanted = all.prefix(sure > 0 ? sure : 10)
        let missing = wanted.count { one in
            !found.contains {
                $0.index == one.index && $0.score >= one.score / 2
                    && $0.box.overlap(with: one.box) > 0.75
            }
        }
        return Result(
            step: .network, output: "coordinates", passed: missing <= wanted.count / 2,
            differing: missing, count: wanted.count, largest: nil, tolerance: 0)
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

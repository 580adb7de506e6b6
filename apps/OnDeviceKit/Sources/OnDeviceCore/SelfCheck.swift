/// Whether this device computes what the model computed where it was exported.
///
/// Each step starts from what the golden file has, so that a fault is found where it is:
/// pixels, normalization or network.
public struct SelfCheck: Sendable {
    /// A step of the check, in their order.
    public enum Step: String, Codable, Sendable, CaseIterable {
        case pixels, normalization, network
    }

    /// What one step found.
    public struct Result: Codable, Sendable, Hashable {
        /// The step.
        public var step: Step
        /// The output that was compared, if the step is the network.
        public var output: String?
        /// Whether the values agree.
        public var passed: Bool
        /// How many values differ by more than is fine, and of how many.
        public var differing, count: Int
        /// The largest difference, in units of what is compared.
        public var largest: Float
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
    ///   - pixels: makes the model's pixels of the golden image; ``Preprocessor`` by default.
    ///   - network: computes the outputs by name from the golden file's pixels; without it
    ///     that step is skipped.
    public func run(
        pixels: (RGBImage, Contract) throws -> RGBImage = {
            try Preprocessor($1).pixels(of: $0)
        },
        network: ((RGBImage) async throws -> [String: Tensor])? = nil
    ) async throws -> Report { fatalError() }
}

#if canImport(CoreML)
    import CoreML
    import Foundation
    import OnDeviceCore

    /// What a package says of itself.
    public struct ModelInfo: Sendable, Hashable {
        /// What goes in.
        public enum Input: Sendable, Hashable {
            /// Pixels; the package normalizes them.
            case image(name: String)
            /// (1, 3, size, size) values that were normalized before.
            case array(name: String)
        }

        /// The model's name, such as `shvit_nano.cifar10`.
        public let name: String
        /// The licence of its weights.
        public let license: String
        /// How a photo becomes its input.
        public let contract: Contract
        /// The name and kind of its one input.
        public let input: Input
        /// The classes in order, if it has any.
        public let labels: [String]
        /// The names of the outputs that are arrays.
        public let arrays: [String]
        /// The names of the outputs that are images, such as depth.
        public let images: [String]
        /// The name of the probabilities by label, if it gives them.
        public let probabilities: String?
        /// All that its maker added.
        public let metadata: [String: String]

        /// Whether it says which class an image is of.
        public var isClassifier: Bool { arrays.contains("logits") || probabilities != nil }

        /// Whether it turns an image into a vector to compare with others.
        public var isEncoder: Bool { arrays.contains("embedding") }

        /// - Throws: ``OnDeviceCore/OnDeviceError/contract(_:)``,
        ///   ``OnDeviceCore/OnDeviceError/model(_:)`` for a package that takes anything but one
        ///   image.
        init(_ description: MLModelDescription, fallback: String) throws(OnDeviceError) {
            let said = description.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
            metadata = said
            name = said["ondevice.model"] ?? fallback
            license = description.metadata[.license] as? String ?? "unknown"
            contract = try Contract(metadata: said)
            input = try Self.input(of: description, contract: contract, said: said, name: name)
            labels = try Self.labels(of: description, said: said)
            let outputs = description.outputDescriptionsByName
            arrays = outputs.filter { $0.value.type == .multiArray }.keys.sorted()
            images = outputs.filter { $0.value.type == .image }.keys.sorted()
            probabilities = description.predictedProbabilitiesName
        }

        private static func input(
            of description: MLModelDescription, contract: Contract, said: [String: String],
            name: String
        ) throws(OnDeviceError) -> Input {
            // A detector's thresholds can be left out.
            let inputs = description.inputDescriptionsByName.filter { !$0.value.isOptional }
            guard inputs.count == 1, let (key, feature) = inputs.first else {
                throw .model("\(name) takes \(inputs.count) inputs; this app gives one image.")
            }
            switch feature.type {
            case .image:
                let size = feature.imageConstraint.map { [$0.pixelsWide, $0.pixelsHigh] } ?? []
                guard size.allSatisfy({ $0 == contract.size }) else {
                    throw .contract(
                        "\(name) takes \(size) pixels; its contract makes \(contract.size).")
                }
                return .image(name: key)
            case .multiArray where said["ondevice.input"] == "array":
                return .array(name: key)
            default:
                throw .model("\(name) takes no image; export an image model with ondevice.")
            }
        }

        private static func labels(
            of description: MLModelDescription, said: [String: String]
        ) throws(OnDeviceError) -> [String] {
            if let labels = description.classLabels { return labels.map { "\($0)" } }
            guard let json = said["ondevice.labels"] else { return [] }
            do {
                return try JSONDecoder().decode([String].self, from: Data(json.utf8))
            } catch {
                throw .labels("The package's list of labels cannot be read; export it again.")
            }
        }
    }
#endif

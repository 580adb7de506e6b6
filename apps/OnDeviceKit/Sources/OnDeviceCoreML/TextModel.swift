#if canImport(CoreML)
    @preconcurrency import CoreML
    import Foundation
    import OnDeviceCore

    /// The text encoder of a CLIP, with its tokenizer: words in, a unit vector out.
    public actor TextModel {
        /// The package.
        public nonisolated let files: ModelFiles

        private let core: MLModel
        private let tokenizer: CLIPTokenizer
        private let input: String
        private var known: [String: [Float]] = [:]

        /// Loads a package that `ondevice export NAME_text` wrote.
        ///
        /// - Parameter tokenizer: the CLIP's `tokenizer.json`.
        /// - Throws: ``OnDeviceCore/OnDeviceError`` with a sentence for the user.
        public init(_ files: ModelFiles, tokenizer: URL) async throws {
            self.tokenizer = try CLIPTokenizer(contentsOf: tokenizer)
            do {
                core = try await MLModel.load(
                    contentsOf: try await files.compiled(),
                    configuration: ComputeUnits.all.configuration)
            } catch {
                throw OnDeviceError.model(
                    "\(files.name) cannot be loaded: \(error.localizedDescription)")
            }
            let description = core.modelDescription
            let inputs = description.inputDescriptionsByName
            guard inputs.count == 1, let (name, feature) = inputs.first,
                feature.type == .multiArray,
                description.outputDescriptionsByName["embedding"] != nil
            else {
                throw OnDeviceError.model(
                    "\(files.name) is no text encoder; choose one that ondevice exported.")
            }
            (self.files, input) = (files, name)
        }

        /// Whether a package is a text encoder, as far as its name and metadata say.
        public static func isTextModel(_ files: ModelFiles) async -> Bool {
            guard let url = try? await files.compiled(),
                let model = try? await MLModel.load(
                    contentsOf: url, configuration: ComputeUnits.cpu.configuration)
            else { return false }
            let said = model.modelDescription.metadata[.creatorDefinedKey] as? [String: String]
            return said?["ondevice.model"]?.contains("_text") ?? false
        }

        /// The unit vector of a text; what was asked before is remembered.
        public func embedding(of text: String) async throws -> [Float] {
            if let vector = known[text] { return vector }
            try Task.checkCancellation()
            let tokens = tokenizer.tokens(of: text)
            let array = MLShapedArray<Int32>(scalars: tokens, shape: [1, tokens.count])
            let given = try MLDictionaryFeatureProvider(dictionary: [
                input: MLFeatureValue(shapedArray: array)
            ])
            let found = try await core.prediction(from: given, options: MLPredictionOptions())
            guard let vector = found.featureValue(for: "embedding")?.multiArrayValue else {
                throw OnDeviceError.model("\(files.name) gives no embedding; export it again.")
            }
            let values = MLShapedArray<Float>(converting: vector).scalars
            known[text] = values
            return values
        }

        /// Forgets what was asked before, when memory is short.
        public func forget() { known.removeAll() }
    }
#endif

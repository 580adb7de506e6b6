#if canImport(CoreML)
    @preconcurrency import CoreML
    import CoreVideo
    import Foundation
    import OnDeviceCore

    /// An image model that is loaded and ready: photo in, classes or values out.
    ///
    /// ```swift
    /// let model = try await Model(ModelFiles(bundled: "SHViT"))
    /// let best = try await model.predictions(of: url).first
    /// ```
    public actor Model: ImageModel {
        /// What the package says of itself.
        public nonisolated let info: ModelInfo
        /// The package.
        public nonisolated let files: ModelFiles
        /// The processors that it may use.
        public nonisolated let units: ComputeUnits

        /// The model's name.
        public nonisolated var name: String { info.name }
        /// How a photo becomes its input.
        public nonisolated var contract: Contract { info.contract }
        /// The classes in order, if it has any.
        public nonisolated var labels: [String] { info.labels }
        /// All that the package's maker added.
        public nonisolated var metadata: [String: String] { info.metadata }

        private nonisolated let preprocessor: Preprocessor
        private let core: MLModel
        private let buffers: PixelBufferPool

        /// Loads a package from this device; a `.mlpackage` is compiled first, once.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError`` with a sentence for the user.
        public init(_ files: ModelFiles, units: ComputeUnits = .all) async throws {
            do {
                core = try await MLModel.load(
                    contentsOf: try await files.compiled(), configuration: units.configuration)
            } catch {
                throw OnDeviceError.model(
                    "\(files.name) cannot be loaded: \(error.localizedDescription)")
            }
            info = try ModelInfo(core.modelDescription, fallback: files.name)
            (self.files, self.units) = (files, units)
            preprocessor = Preprocessor(info.contract)
            buffers = PixelBufferPool(size: info.contract.size)
        }

        /// Runs once, so that what comes next does not wait for the processor to get ready.
        public func prewarm() async throws {
            let size = info.contract.size
            let black = [UInt8](repeating: 0, count: size * size * 3)
            _ = try await outputs(for: RGBImage(width: size, height: size, pixels: black))
        }

        /// The most likely classes of a photo of any size, most likely first.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError``, or `CancellationError`.
        public nonisolated func predictions(
            of photo: sending some ImageSource, count: Int = 5
        ) async throws -> [Prediction] {
            try await predictions(for: prepare(photo), count: count)
        }

        /// The things in a photo of any size, in its own upright pixels, most likely first.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError``, also if the model is no detector.
        public nonisolated func detections(
            of photo: sending some ImageSource
        ) async throws -> [Detection] {
            try Task.checkCancellation()
            let (image, orientation) = try photo.stored()
            return try await detections(of: image, orientation: orientation)
        }

        /// All outputs of a photo of any size, by name, in float32.
        public nonisolated func outputs(
            of photo: sending some ImageSource
        ) async throws -> [String: Tensor] {
            try await outputs(for: prepare(photo))
        }

        /// What the model sees of a photo, by its contract: `size` x `size` pixels.
        public nonisolated func prepare(_ photo: some ImageSource) throws -> RGBImage {
            try Task.checkCancellation()
            let (image, orientation) = try photo.stored()
            return try preprocessor.pixels(of: image, orientation: orientation)
        }

        /// The most likely classes of pixels that ``prepare(_:)`` made.
        public func predictions(
            for pixels: RGBImage, count: Int = 5
        ) async throws -> [Prediction] {
            let found = try await features(for: pixels)
            if let logits = found.featureValue(for: "logits")?.multiArrayValue {
                let values = MLShapedArray<Float>(converting: logits).scalars
                return try Prediction.top(logits: values, labels: info.labels, count: count)
            }
            guard let name = info.probabilities,
                let scores = found.featureValue(for: name)?.dictionaryValue
            else {
                throw OnDeviceError.model("\(info.name) gives no classes; it is no classifier.")
            }
            return try top(scores, count: count)
        }

        private func top(_ scores: [AnyHashable: NSNumber], count: Int) throws -> [Prediction] {
            let values = info.labels.map { scores[$0]?.floatValue }
            guard values.count == scores.count, !values.contains(nil) else {
                throw OnDeviceError.labels(
                    "\(info.name) has \(info.labels.count) labels for \(scores.count) classes.")
            }
            let known = values.map { $0 ?? 0 }
            return Probabilities.top(known, count: count).map {
                Prediction(label: info.labels[$0], score: known[$0], index: $0)
            }
        }

        /// All outputs that are arrays or images, of pixels that ``prepare(_:)`` made; an image
        /// is (1, channels, height, width).
        public func outputs(for pixels: RGBImage) async throws -> [String: Tensor] {
            let found = try await features(for: pixels)
            var tensors: [String: Tensor] = [:]
            for name in info.arrays {
                guard let array = found.featureValue(for: name)?.multiArrayValue else {
                    continue
                }
                let values = MLShapedArray<Float>(converting: array)
                tensors[name] = try Tensor(shape: values.shape, values: values.scalars)
            }
            for name in info.images {
                guard let image = found.featureValue(for: name)?.imageBufferValue else {
                    continue
                }
                tensors[name] = try Tensor(image)
            }
            return tensors
        }

        /// Whether this device computes what the model computed where it was exported: which
        /// step differs, if one does.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/golden(_:)`` if there is no golden file, or
        ///   another model's.
        public nonisolated func selfCheck() async throws -> SelfCheck.Report {
            guard let url = files.golden else {
                throw OnDeviceError.golden(
                    "\(files.name) has no golden file beside it; ondevice export writes one.")
            }
            let golden = try Golden(contentsOf: url)
            guard golden.contract == info.contract else {
                throw OnDeviceError.golden(
                    "\(url.lastPathComponent) is of another model than \(files.name).")
            }
            return try await SelfCheck(golden).run(network: { pixels in
                try await self.outputs(for: pixels)
            })
        }

        private func features(for pixels: RGBImage) async throws -> any MLFeatureProvider {
            try Task.checkCancellation()
            let (name, value) = try feature(of: pixels)
            let given = try MLDictionaryFeatureProvider(dictionary: [name: value])
            do {
                return try await core.prediction(from: given, options: MLPredictionOptions())
            } catch is CancellationError {
                throw CancellationError()
            } catch {
                throw OnDeviceError.model(
                    "\(info.name) cannot be run: \(error.localizedDescription)")
            }
        }

        private func feature(of pixels: RGBImage) throws -> (String, MLFeatureValue) {
            let size = info.contract.size
            guard pixels.width == size, pixels.height == size else {
                throw OnDeviceError.shape(
                    "\(info.name) takes \(size) x \(size) pixels; given \(pixels.width) x "
                        + "\(pixels.height).")
            }
            switch info.input {
            case .image(let name):
                return (name, MLFeatureValue(pixelBuffer: try buffers.buffer(of: pixels)))
            case .array(let name):
                let tensor = preprocessor.normalized(pixels)
                let array = MLShapedArray(scalars: tensor.values, shape: tensor.shape)
                return (name, MLFeatureValue(shapedArray: array))
            }
        }
    }
#endif

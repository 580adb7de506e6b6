#if canImport(CoreAI)
    import CoreAI
    import Foundation
    import OnDeviceCore

    /// An image model in a `.aimodel` package: photo in, values out, by Core AI.
    ///
    /// A package that takes an image has a second function that takes the same pixels as an
    /// array; that one is called, so that the values that go in are the contract's own.
    @available(iOS 27, macOS 27, *)
    public struct CoreAIModel: ImageModel {
        /// The model's name, such as `shvit_nano.cifar10`.
        public let name: String
        /// How a photo becomes its input.
        public let contract: Contract
        /// The classes in order, if it has any.
        public let labels: [String]
        /// All that the package's maker added.
        public let metadata: [String: String]

        private let function: InferenceFunction
        private let input: String
        private let isNormalized: Bool
        private let preprocessor: Preprocessor

        /// The end of the name of a function that takes images as arrays.
        private static let pixels = "_pixels"

        /// Loads a package from this device; the first time, Core AI specializes it.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError`` with a sentence for the user.
        public init(contentsOf url: URL) async throws {
            let title = url.lastPathComponent
            let said: [String: String]
            do {
                said = Self.strings(try AIModelAsset(contentsOf: url).metadata)
                function = try await Self.function(of: url)
            } catch let error as OnDeviceError {
                throw error
            } catch {
                throw OnDeviceError.model(
                    "\(title) cannot be loaded: \(error.localizedDescription)")
            }
            guard let input = function.descriptor.inputNames.first,
                function.descriptor.inputCount == 1
            else {
                throw OnDeviceError.model("\(title) takes more than one image.")
            }
            self.input = input
            metadata = said
            name = said["ondevice.model"] ?? title
            contract = try Contract(metadata: said)
            isNormalized = said["ondevice.input"] == "array"
            preprocessor = Preprocessor(contract)
            let json = Data((said["ondevice.labels"] ?? "[]").utf8)
            guard let labels = try? JSONDecoder().decode([String].self, from: json) else {
                throw OnDeviceError.labels("The labels in \(title) cannot be read.")
            }
            self.labels = labels
        }

        private static func strings(_ metadata: AIModelAsset.Metadata) -> [String: String] {
            var found: [String: String] = [:]
            for key in metadata.creatorDefinedMetadata.keys {
                found[key] = metadata[key, String.self]
            }
            return found
        }

        private static func function(of url: URL) async throws -> InferenceFunction {
            let model = try await AIModel(contentsOf: url)
            let names = model.functionNames.sorted()
            let chosen = names.first { $0.hasSuffix(pixels) } ?? names.first ?? "main"
            guard let function = try model.loadFunction(named: chosen) else {
                throw OnDeviceError.model("\(url.lastPathComponent) has no function \(chosen).")
            }
            return function
        }

        /// All outputs of a photo of any size, by name, in float32.
        public func outputs(
            of photo: RGBImage, orientation: Orientation = .up
        ) async throws -> [String: Tensor] {
            try await outputs(for: preprocessor.pixels(of: photo, orientation: orientation))
        }

        /// All outputs of `size` x `size` pixels.
        public func outputs(for pixels: RGBImage) async throws -> [String: Tensor] {
            try Task.checkCancellation()
            let given = array(of: pixels)
            var found = try await function.run(inputs: [input: given])
            var tensors: [String: Tensor] = [:]
            for name in function.descriptor.outputNames {
                guard let array = found.remove(name)?.ndArray else { continue }
                tensors[name] = try Self.tensor(array, named: name)
            }
            return tensors
        }

        /// Whether this device computes what the model computed where it was exported.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/golden(_:)`` for another model's file.
        public func selfCheck(_ golden: Golden) async throws -> SelfCheck.Report {
            guard golden.contract == contract else {
                throw OnDeviceError.golden("The golden file is of another model than \(name).")
            }
            return try await SelfCheck(golden).run(network: { try await self.outputs(for: $0) })
        }

        /// (1, 3, size, size): normalized, or as the pixels are, in the type that is asked for.
        private func array(of pixels: RGBImage) -> NDArray {
            let shape = [1, 3, pixels.height, pixels.width]
            let values = isNormalized ? preprocessor.normalized(pixels).values : planes(pixels)
            guard case .ndArray(let wanted) = function.descriptor.inputDescriptor(of: input),
                wanted.scalarType == .float16
            else { return NDArray(scalars: values, shape: shape) }
            return NDArray(scalars: values.map { Float16($0) }, shape: shape)
        }

        private func planes(_ image: RGBImage) -> [Float] {
            (0..<3).flatMap { channel in
                stride(from: channel, to: image.pixels.count, by: 3).map {
                    Float(image.pixels[$0])
                }
            }
        }

        private static func tensor(_ array: NDArray, named name: String) throws -> Tensor {
            let values: [Float]
            switch array.scalarType {
            case .float32: values = read(array, as: Float.self) { $0 }
            case .float16: values = read(array, as: Float16.self) { Float($0) }
            case .int32: values = read(array, as: Int32.self) { Float($0) }
            default: throw OnDeviceError.model("\(name) is no array of numbers.")
            }
            return try Tensor(shape: array.shape, values: values)
        }

        /// The elements in row-major order, wherever they lie.
        private static func read<Scalar: BitwiseCopyable>(
            _ array: NDArray, as type: Scalar.Type, convert: (Scalar) -> Float
        ) -> [Float] {
            let (shape, strides) = (array.shape, array.strides)
            return array.view(as: type).withUnsafePointer { base, _, _ in
                (0..<shape.reduce(1, *)).map { position in
                    var (rest, offset) = (position, 0)
                    for axis in shape.indices.reversed() {
                        offset += rest % shape[axis] * strides[axis]
                        rest /= shape[axis]
                    }
                    return convert(base[offset])
                }
            }
        }
    }
#endif

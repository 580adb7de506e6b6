/// A model of one image, whatever runs it: what its outputs mean.
public protocol ImageModel: Sendable {
    /// The model's name, such as `shvit_nano.cifar10`.
    var name: String { get }
    /// How a photo becomes its input.
    var contract: Contract { get }
    /// The classes in order, if it has any.
    var labels: [String] { get }
    /// All that the maker of its package added.
    var metadata: [String: String] { get }

    /// All outputs by name, of `size` x `size` pixels that the contract made of a photo.
    func outputs(for pixels: RGBImage) async throws -> [String: Tensor]
}

extension ImageModel {
    /// The things in a photo of any size, in its own upright pixels, most likely first.
    ///
    /// - Throws: ``OnDeviceError``, also if the model is no detector.
    public func detections(
        of photo: RGBImage, orientation: Orientation = .up
    ) async throws -> [Detection] {
        let preprocessor = Preprocessor(contract)
        let pixels = try preprocessor.pixels(of: photo, orientation: orientation)
        let (width, height) = orientation.uprightSize(of: photo)
        return try await detections(
            for: pixels, placement: preprocessor.placement(width: width, height: height))
    }

    /// The things in `size` x `size` pixels that the contract made, most likely first.
    ///
    /// - Parameter placement: where these lie in the photo in whose pixels boxes are wanted; by
    ///   default boxes are in these pixels themselves.
    /// - Throws: ``OnDeviceError``, also if the model is no detector.
    public func detections(
        for pixels: RGBImage, placement: Placement? = nil
    ) async throws -> [Detection] {
        let found = try await outputs(for: pixels)
        guard let boxes = found["coordinates"], let scores = found["confidence"] else {
            throw OnDeviceError.model("\(name) gives no boxes; it is no detector.")
        }
        return try BoxDecoder(metadata: metadata).detections(
            boxes: boxes, scores: scores, labels: labels,
            placement: placement ?? .square(contract.size))
    }

    /// The class of each of `size` x `size` pixels that the contract made, row by row.
    ///
    /// - Throws: ``OnDeviceError``, also if the model gives no mask.
    public func mask(for pixels: RGBImage) async throws -> [Int] {
        let found = try await outputs(for: pixels)
        guard let mask = found["mask"] ?? found["mask_image"] else {
            throw OnDeviceError.model("\(name) gives no mask; export it with --output mask.")
        }
        return mask.values.map { Int($0.rounded()) }
    }

    /// The depth at each of `size` x `size` pixels that the contract made: (height, width), with
    /// axes of one before.
    ///
    /// - Throws: ``OnDeviceError``, also if the model gives no depth.
    public func depth(for pixels: RGBImage) async throws -> Tensor {
        let found = try await outputs(for: pixels)
        guard let depth = found["depth"] ?? found["depth_grey"] ?? found["depth_array"] else {
            throw OnDeviceError.model("\(name) gives no depth; export it with --output depth.")
        }
        return depth
    }

    /// The unit vector of an image, of `size` x `size` pixels that the contract made.
    ///
    /// - Throws: ``OnDeviceError``, also if the model gives no embedding.
    public func embedding(for pixels: RGBImage) async throws -> [Float] {
        guard let vector = try await outputs(for: pixels)["embedding"]?.values else {
            throw OnDeviceError.model(
                "\(name) gives no embedding; export it with --output embedding.")
        }
        let length = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return length > 0 ? vector.map { $0 / length } : vector
    }
}

/// Follows a ``Contract``: from an image of any size to what the model takes.
public struct Preprocessor: Sendable, Hashable {
    /// What is followed.
    public let contract: Contract

    /// A preprocessor that follows `contract`.
    public init(_ contract: Contract) { self.contract = contract }

    /// The `size` x `size` pixels that the model sees, the same as Python's
    /// `ondevice.image.preprocess.resize_and_crop`, value for value.
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` if the image is so long and narrow that it would
    ///   become too large on the way.
    public func pixels(
        of image: RGBImage, orientation: Orientation = .up
    ) throws(OnDeviceError) -> RGBImage { fatalError() }

    /// `(pixels / 255 - mean) / std` as float32 of shape (1, 3, height, width).
    ///
    /// A package that takes an image normalizes by itself; one that was exported with
    /// `--input array` takes this.
    public func normalized(_ pixels: RGBImage) -> Tensor { fatalError() }

    /// Where a `width` x `height` image lies in the model's square.
    public func placement(width: Int, height: Int) -> Placement { fatalError() }
}

/// An upright 8-bit RGB image: `height` rows of `width` pixels of three values.
public struct RGBImage: Sendable, Hashable {
    /// Pixels in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// `height * width * 3` values from 0 to 255, row by row: red, green, blue.
    public let pixels: [UInt8]

    /// - Throws: ``OnDeviceError/image(_:)`` if there is no pixel, or another number of them.
    public init(width: Int, height: Int, pixels: [UInt8]) throws(OnDeviceError) {
        guard width > 0, height > 0, pixels.count == width * height * 3 else {
            throw .image(
                "An image of \(width) x \(height) pixels has \(max(0, width * height * 3)) "
                    + "values; given \(pixels.count).")
        }
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }
}

/// How a stored image has to be turned to be upright: the values of EXIF's tag 274.
///
/// The same numbers as `CGImagePropertyOrientation`.
public enum Orientation: Int, Sendable, CaseIterable {
    case up = 1
    case upMirrored, down, downMirrored, leftMirrored, right, rightMirrored, left
}

extension RGBImage {
    /// The image turned upright, given how it is stored.
    public func upright(from orientation: Orientation) -> RGBImage { fatalError() }

    /// The image resized with the very pixels of Pillow's `Image.resize`.
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` if an edge is not positive.
    public func resized(
        width: Int, height: Int, interpolation: Interpolation
    ) throws(OnDeviceError) -> RGBImage { fatalError() }

    /// Reads the bytes of a binary PPM file (P6, 8 bits).
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` for anything else.
    public init(ppm bytes: [UInt8]) throws(OnDeviceError) { fatalError() }

    /// The bytes of a binary PPM file.
    public var ppm: [UInt8] { fatalError() }
}

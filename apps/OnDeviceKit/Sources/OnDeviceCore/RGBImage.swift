/// An upright 8-bit RGB image: `height` rows of `width` pixels of three values.
public struct RGBImage: Sendable, Hashable {
    /// Pixels in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// `height * width * 3` values from 0 to 255, row by row: red, green, blue.
    public let pixels: [UInt8]

    /// An image of these pixels.
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` if there is no pixel, or another number of them.
    public init(width: Int, height: Int, pixels: [UInt8]) throws(OnDeviceError) {
        guard width > 0, height > 0 else {
            throw .image(
                "An image has a width and a height; given \(width) x \(height) pixels.")
        }
        let (area, isTooLarge) = width.multipliedReportingOverflow(by: height)
        guard !isTooLarge, pixels.count.isMultiple(of: 3), pixels.count / 3 == area else {
            throw .image(
                "An image of \(width) x \(height) pixels has three values for each; given "
                    + "\(pixels.count) values.")
        }
        self.init(unchecked: pixels, width: width, height: height)
    }

    init(unchecked pixels: [UInt8], width: Int, height: Int) {
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }

    /// An image of one colour.
    init(width: Int, height: Int, color: SIMD3<UInt8>) {
        let pixels = [UInt8](unsafeUninitializedCapacity: width * height * 3) { output, count in
            count = width * height * 3
            for i in 0..<count { output[i] = color[i % 3] }
        }
        self.init(unchecked: pixels, width: width, height: height)
    }
}

/// How a stored image has to be turned to be upright: the values of EXIF's tag 274.
///
/// The same numbers as `CGImagePropertyOrientation`.
public enum Orientation: Int, Codable, Sendable, CaseIterable {
    /// As it is stored.
    case up = 1
    /// Its left and right are swapped.
    case upMirrored
    /// It stands on its head.
    case down
    /// Its top and bottom are swapped.
    case downMirrored
    /// Rows are columns.
    case leftMirrored
    /// It has to be turned clockwise.
    case right
    /// Rows are columns, from the lower right corner on.
    case rightMirrored
    /// It has to be turned counterclockwise.
    case left

    /// Whether rows of the stored image are columns of the upright one.
    public var isTurned: Bool { rawValue >= Orientation.leftMirrored.rawValue }

    /// The size of a stored image when it is upright.
    public func uprightSize(of image: RGBImage) -> (width: Int, height: Int) {
        isTurned ? (image.height, image.width) : (image.width, image.height)
    }
}

extension RGBImage {
    /// The image turned upright, given how it is stored.
    public func upright(from orientation: Orientation) -> RGBImage {
        guard orientation != .up else { return self }
        let turn = Turn(orientation, width: width, height: height)
        let found = [UInt8](unsafeUninitializedCapacity: pixels.count) { output, count in
            var target = 0
            for y in 0..<turn.height {
                var source = turn.start + y * turn.downStep
                for _ in 0..<turn.width {
                    for channel in 0..<3 {
                        output[target + channel] = pixels[source * 3 + channel]
                    }
                    target += 3
                    source += turn.rightStep
                }
            }
            count = target
        }
        return RGBImage(unchecked: found, width: turn.width, height: turn.height)
    }

    /// The part of the image in a square of `side` pixels around its centre; where the image is
    /// smaller, `fill` is around it.
    func centered(side: Int, fill: SIMD3<UInt8>) -> RGBImage {
        placed(Centering(width, in: side), Centering(height, in: side), side: side, fill: fill)
    }

    /// The largest square in the middle.
    func centerSquare() -> RGBImage {
        let side = min(width, height)
        return placed(
            Centering(width, in: side, half: .before),
            Centering(height, in: side, half: .before), side: side, fill: .zero)
    }

    private func placed(
        _ across: Centering, _ down: Centering, side: Int, fill: SIMD3<UInt8>
    ) -> RGBImage {
        if across.count == side, down.count == side, (width, height) == (side, side) {
            return self
        }
        var found = RGBImage(width: side, height: side, color: fill).pixels
        for row in 0..<down.count {
            let source = ((down.source + row) * width + across.source) * 3
            let target = ((down.target + row) * side + across.target) * 3
            found.withUnsafeMutableBufferPointer { output in
                pixels.withUnsafeBufferPointer { input in
                    for i in 0..<(across.count * 3) { output[target + i] = input[source + i] }
                }
            }
        }
        return RGBImage(unchecked: found, width: side, height: side)
    }
}

/// Where an axis of an image goes in one of another length, both around the same centre.
struct Centering: Hashable {
    /// The first position of the image that is kept.
    let source: Int
    /// Where it goes.
    let target: Int
    /// How many are kept.
    let count: Int

    /// Where half a pixel goes.
    enum Half {
        /// To the even position, as torchvision's centre crop has it.
        case even
        /// To the left or the top.
        case before
    }

    init(_ length: Int, in side: Int, half: Half = .even) {
        let excess = max(0, length - side)
        let even = Int((Double(excess) / 2).rounded(.toNearestOrEven))
        source = half == .even ? even : excess / 2
        target = length < side ? (side - length) / 2 : 0
        count = min(length, side)
    }

    /// The positions of the image that are kept.
    var kept: Range<Int> { source..<(source + count) }
}

/// From the pixels of an upright image to those of the stored one.
private struct Turn {
    let width, height: Int
    /// The stored position of the first pixel, and the steps to the next one and the next row.
    let start, rightStep, downStep: Int

    init(_ orientation: Orientation, width: Int, height: Int) {
        let last = (right: width - 1, bottom: (height - 1) * width)
        (self.width, self.height) = orientation.isTurned ? (height, width) : (width, height)
        (start, rightStep, downStep) =
            switch orientation {
            case .up: (0, 1, width)
            case .upMirrored: (last.right, -1, width)
            case .down: (last.bottom + last.right, -1, -width)
            case .downMirrored: (last.bottom, 1, -width)
            case .leftMirrored: (0, width, 1)
            case .right: (last.bottom, -width, 1)
            case .rightMirrored: (last.bottom + last.right, -width, -1)
            case .left: (last.right, width, -1)
            }
    }
}

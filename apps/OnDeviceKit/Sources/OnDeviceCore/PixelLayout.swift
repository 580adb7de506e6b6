/// How an output that is an image lies in memory, row by row.
public enum PixelLayout: Sendable, CaseIterable {
    /// A byte for each pixel.
    case grey8
    /// A number of half precision for each pixel.
    case greyFloat16
    /// Four bytes for each pixel, of which the last means nothing.
    case bgra8

    /// The values of an image, as an array (1, channels, height, width) with 1 or 3 channels.
    ///
    /// - Parameter rows: `height` rows that start `bytesPerRow` bytes apart.
    /// - Throws: ``OnDeviceError/shape(_:)`` if there are fewer bytes.
    public func tensor(
        _ rows: UnsafeRawBufferPointer, width: Int, height: Int, bytesPerRow: Int
    ) throws(OnDeviceError) -> Tensor {
        let least = width * bytesPerPixel
        guard width > 0, height > 0, bytesPerRow >= least,
            rows.count >= (height - 1) * bytesPerRow + least
        else {
            throw .shape(
                "An image of \(width) x \(height) pixels does not fit into \(rows.count) bytes."
            )
        }
        let channels = self == .bgra8 ? 3 : 1
        var values = [Float]()
        values.reserveCapacity(channels * width * height)
        for channel in 0..<channels {
            for y in 0..<height {
                for x in 0..<width {
                    values.append(value(rows, at: y * bytesPerRow + x * bytesPerPixel, channel))
                }
            }
        }
        return Tensor(unchecked: values, shape: [1, channels, height, width])
    }

    private var bytesPerPixel: Int {
        switch self {
        case .grey8: 1
        case .greyFloat16: 2
        case .bgra8: 4
        }
    }

    private func value(_ bytes: UnsafeRawBufferPointer, at offset: Int, _ channel: Int) -> Float
    {
        switch self {
        case .grey8: Float(bytes[offset])
        case .greyFloat16:
            Float(half: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
        case .bgra8: Float(bytes[offset + 2 - channel])
        }
    }
}

extension Float {
    /// The number that 16 bits of half precision are. Swift's own `Float16` is not on all Macs.
    init(half bits: UInt16) {
        let (exponent, fraction) = (Int(bits >> 10 & 31), Float(bits & 1023) / 1024)
        let size: Float =
            switch exponent {
            case 0: fraction * Float(sign: .plus, exponent: -14, significand: 1)
            case 31: fraction == 0 ? .infinity : .nan
            default: Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction)
            }
        self = bits >> 15 == 0 ? size : -size
    }
}

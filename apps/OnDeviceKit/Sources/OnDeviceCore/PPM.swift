extension RGBImage {
    /// Reads the bytes of a binary PPM file (P6, 8 bits).
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` for anything else.
    public init(ppm bytes: [UInt8]) throws(OnDeviceError) {
        var header = PPMHeader(bytes)
        guard bytes.starts(with: Array("P6".utf8)), let width = header.number(),
            let height = header.number(), header.number() == 255,
            header.position < bytes.count
        else {
            throw .image("The image is no binary PPM file of 8 bits, which begins with P6.")
        }
        // One byte of white space ends the header; a file may hold more images after the first.
        let rest = bytes[(header.position + 1)...]
        let (area, isTooLarge) = width.multipliedReportingOverflow(by: height)
        guard !isTooLarge, area <= rest.count / 3 else {
            throw .image(
                "The image is cut off: \(width) x \(height) pixels do not fit \(rest.count) "
                    + "bytes.")
        }
        try self.init(width: width, height: height, pixels: Array(rest.prefix(area * 3)))
    }

    /// The bytes of a binary PPM file.
    public var ppm: [UInt8] { Array("P6\n\(width) \(height)\n255\n".utf8) + pixels }
}

/// Reads the numbers at the beginning of a PPM file, with white space and comments between.
private struct PPMHeader {
    let bytes: [UInt8]
    private(set) var position = 2

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func number() -> Int? {
        guard position <= bytes.count else { return nil }
        skipSpace()
        let digits = bytes[position...].prefix(9).prefix { (48...57).contains($0) }
        position += digits.count
        return Int(String(decoding: digits, as: UTF8.self))
    }

    private mutating func skipSpace() {
        while position < bytes.count {
            if bytes[position] == UInt8(ascii: "#") {
                position = bytes[position...].firstIndex(of: 10) ?? bytes.count
            } else if ![9, 10, 11, 12, 13, 32].contains(bytes[position]) {
                return
            } else {
                position += 1
            }
        }
    }
}

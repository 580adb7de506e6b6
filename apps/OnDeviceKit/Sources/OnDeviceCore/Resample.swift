extension RGBImage {
    /// The image resized with the very pixel values of Pillow's `Image.resize`, of the width first
    /// and then of the height: from 13 on Pillow by itself begins with the height of tall images.
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` if an edge is not positive.
    public func resized(
        width: Int, height: Int, interpolation: Interpolation
    ) throws(OnDeviceError) -> RGBImage {
        guard width > 0, height > 0 else {
            throw .image(
                "An image is resized to a positive width and height; given \(width) x \(height)."
            )
        }
        return resized(
            width: width, height: height, columns: 0..<width, rows: 0..<height, interpolation)
    }

    /// These columns and rows of the image resized to `width` x `height`: the others are not
    /// computed.
    func resized(
        width: Int, height: Int, columns: Range<Int>, rows: Range<Int>,
        _ interpolation: Interpolation
    ) -> RGBImage {
        guard let filter = Filter(interpolation) else {
            return picked(
                columns: nearest(input: self.width, output: width)[columns],
                rows: nearest(input: self.height, output: height)[rows])
        }
        let across = Taps(
            input: self.width, output: width, positions: columns, filter: filter)
        let down = Taps(input: self.height, output: height, positions: rows, filter: filter)
        // As in Pillow, what comes between the passes has 8 bits, and an axis that stays as long
        // as it is has no pass.
        switch (width == self.width, height == self.height) {
        case (true, true): return picked(columns: Array(columns)[...], rows: Array(rows)[...])
        case (true, false):
            return picked(columns: Array(columns)[...], rows: Array(down.range)[...])
                .vertical(down, firstRow: down.range.lowerBound)
        case (false, true): return horizontal(across, rows: rows)
        case (false, false):
            return horizontal(across, rows: down.range)
                .vertical(down, firstRow: down.range.lowerBound)
        }
    }

    /// The pixels where these columns and rows cross; those outside the image are black.
    private func picked(columns: ArraySlice<Int>, rows: ArraySlice<Int>) -> RGBImage {
        var found: [UInt8] = []
        found.reserveCapacity(columns.count * rows.count * 3)
        for y in rows {
            for x in columns {
                let isInside = (0..<width).contains(x) && (0..<height).contains(y)
                let pixel = (y * width + x) * 3
                found += isInside ? pixels[pixel..<(pixel + 3)] : [0, 0, 0]
            }
        }
        return RGBImage(unchecked: found, width: columns.count, height: rows.count)
    }

    /// The first pass: these rows, each resized.
    private func horizontal(_ taps: Taps, rows: Range<Int>) -> RGBImage {
        let columns = taps.starts.count
        let found = [UInt8](unsafeUninitializedCapacity: rows.count * columns * 3) {
            output, count in
            pixels.withUnsafeBufferPointer { input in
                var packed = PackedRows(width: width)
                for y in stride(from: rows.lowerBound, to: rows.upperBound, by: 2) {
                    let second = min(y + 1, rows.upperBound - 1)
                    packed.load(input, rows: y, second)
                    let line = (y - rows.lowerBound) * columns * 3
                    let next = (second - rows.lowerBound) * columns * 3
                    packed.resize(taps, into: output, lines: line, next)
                }
            }
            count = rows.count * columns * 3
        }
        return RGBImage(unchecked: found, width: columns, height: rows.count)
    }

    /// The second pass; `firstRow` is where the image's first row was before the first.
    private func vertical(_ taps: Taps, firstRow: Int) -> RGBImage {
        let (rows, length) = (taps.starts.count, width * 3)
        let found = [UInt8](unsafeUninitializedCapacity: rows * length) { output, count in
            var sums = [Int32](repeating: 0, count: length)
            pixels.withUnsafeBufferPointer { input in
                for y in 0..<rows {
                    sums.withUnsafeMutableBufferPointer { sums in
                        sums.update(repeating: 1 << (Taps.precision - 1))
                        for tap in 0..<taps.counts[y] {
                            let weight = taps.weights[y * taps.stride + tap]
                            let row = (taps.starts[y] + tap - firstRow) * length
                            for i in 0..<length {
                                sums[i] &+= weight &* Int32(truncatingIfNeeded: input[row &+ i])
                            }
                        }
                        for i in 0..<length { output[y * length + i] = rounded(sums[i]) }
                    }
                }
            }
            count = rows * length
        }
        return RGBImage(unchecked: found, width: width, height: rows)
    }
}

/// Two rows of an image, with two of their values in each 64-bit number, so that one
/// multiplication does for both.
///
/// A sum of pixel values times weights fits 32 bits with its sign. The sum of such pairs is
/// `low + high * 2³²`, from which both come back exactly.
private struct PackedRows {
    private let width: Int
    private var pairs: [Int64]  // three for each pixel: all values of both rows

    init(width: Int) {
        self.width = width
        pairs = [Int64](repeating: 0, count: width * 3)
    }

    mutating func load(_ input: UnsafeBufferPointer<UInt8>, rows first: Int, _ second: Int) {
        let (length, top, bottom) = (width * 3, first * width * 3, second * width * 3)
        pairs.withUnsafeMutableBufferPointer { pairs in
            for i in 0..<length {
                pairs[i] =
                    Int64(truncatingIfNeeded: input[top &+ i])
                    | Int64(truncatingIfNeeded: input[bottom &+ i]) << 32
            }
        }
    }

    func resize(
        _ taps: Taps, into output: UnsafeMutableBufferPointer<UInt8>, lines first: Int,
        _ second: Int
    ) {
        let half = Int64(1) << Int64(Taps.precision - 1)
        pairs.withUnsafeBufferPointer { pairs in
            taps.weights.withUnsafeBufferPointer { weights in
                for x in 0..<taps.starts.count {
                    var (red, green, blue) = (
                        half | half << 32, half | half << 32, half | half << 32
                    )
                    let (start, weight) = (taps.starts[x] * 3, x * taps.stride)
                    for tap in 0..<taps.counts[x] {
                        let factor = Int64(truncatingIfNeeded: weights[weight &+ tap])
                        let pixel = start &+ tap &* 3
                        red &+= factor &* pairs[pixel]
                        green &+= factor &* pairs[pixel &+ 1]
                        blue &+= factor &* pairs[pixel &+ 2]
                    }
                    for (channel, sum) in [(0, red), (1, green), (2, blue)] {
                        let low = Int32(truncatingIfNeeded: sum)
                        let high = Int32(truncatingIfNeeded: (sum &- Int64(low)) >> 32)
                        output[first + x * 3 + channel] = rounded(low)
                        output[second + x * 3 + channel] = rounded(high)
                    }
                }
            }
        }
    }
}

/// A sum of weighted pixel values, half a unit added, as a pixel value.
private func rounded(_ sum: Int32) -> UInt8 { UInt8(clamping: sum >> Taps.precision) }

/// The input position of each output position without a filter; -1 outside the image.
///
/// Positions are added up as in Pillow, whose rounding errors decide what is half-way.
private func nearest(input: Int, output: Int) -> [Int] {
    let scale = Double(input) / Double(output)
    var position = scale * 0.5
    return (0..<output).map { _ in
        defer { position += scale }
        return position < Double(input) ? Int(position) : -1
    }
}

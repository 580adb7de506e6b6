/// Colours for masks and depth maps, so that a person sees them.
public enum Coloring {
    /// The colour of a class in a mask: Pascal VOC's palette of 256, in which class 0 is black.
    ///
    /// The bits of the class are dealt out to red, green and blue in turn, the highest first,
    /// so that neighbours differ most.
    public static func color(ofClass index: Int) -> SIMD3<UInt8> {
        var color = SIMD3<UInt8>.zero
        for bit in 0..<8 where index >> bit & 1 == 1 {
            color[bit % 3] |= 0x80 >> UInt8(bit / 3)
        }
        return color
    }

    /// A mask of classes as an image.
    ///
    /// - Parameter classes: `width * height` positions of classes, row by row.
    /// - Throws: ``OnDeviceError/image(_:)`` if there are more or fewer.
    public static func image(
        classes: [Int], width: Int, height: Int
    ) throws(OnDeviceError) -> RGBImage {
        let colors = (0..<256).map { color(ofClass: $0) }
        return try RGBImage(
            width: width, height: height,
            pixels: classes.flatMap { bytes(colors[$0 & 255]) })
    }

    /// The likeliest class of each position of a (classes, height, width) array, row by row;
    /// axes of one may be before.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)``.
    public static func classes(_ scores: Tensor) throws(OnDeviceError) -> [Int] {
        guard let shape = scores.withoutBatch(axes: 3), shape[0] > 0 else {
            throw .shape(
                "Scores of shape (classes, height, width) are expected; given \(scores.shape).")
        }
        let area = shape[1] * shape[2]
        var (best, found) = (Array(scores.values[..<area]), [Int](repeating: 0, count: area))
        for index in 1..<max(1, shape[0]) {
            for position in 0..<area
            where scores.values[index * area + position] > best[position] {
                best[position] = scores.values[index * area + position]
                found[position] = index
            }
        }
        return found
    }

    /// The classes of a mask and the part of it that each covers, the largest first.
    public static func shares(_ classes: [Int]) -> [(index: Int, share: Float)] {
        var counts: [Int: Int] = [:]
        for index in classes { counts[index, default: 0] += 1 }
        return counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { ($0.key, Float($0.value) / Float(classes.count)) }
    }

    /// A depth map as an image: the smallest value dark, the largest light; what is not finite
    /// is black.
    ///
    /// - Parameter depth: (height, width); axes of one may be before.
    /// - Throws: ``OnDeviceError/shape(_:)``.
    public static func image(depth: Tensor) throws(OnDeviceError) -> RGBImage {
        guard let shape = depth.withoutBatch(axes: 2), depth.values.count > 0 else {
            throw .shape(
                "A depth map of shape (height, width) is expected; given \(depth.shape).")
        }
        let finite = depth.values.filter(\.isFinite)
        let (least, most) = (finite.min() ?? 0, finite.max() ?? 0)
        let pixels = depth.values.flatMap { value -> [UInt8] in
            guard value.isFinite else { return [0, 0, 0] }
            return bytes(shade(most > least ? (value - least) / (most - least) : 0))
        }
        return RGBImage(unchecked: pixels, width: shape[1], height: shape[0])
    }

    /// From violet over red and orange to light yellow, each as much lighter than the last.
    private static let shades: [SIMD3<Float>] = [
        [20, 10, 70], [95, 25, 125], [175, 50, 105], [235, 110, 60], [250, 180, 70],
        [255, 250, 190],
    ]

    /// The colour of a depth from 0 to 1.
    static func shade(_ depth: Float) -> SIMD3<UInt8> {
        let position = depth * Float(shades.count - 1)
        let index = min(Int(position), shades.count - 2)
        let part = position - Float(index)
        let color = shades[index] * (1 - part) + shades[index + 1] * part
        return SIMD3<UInt8>(truncatingIfNeeded: SIMD3<Int32>(color, rounding: .toNearestOrEven))
    }

    private static func bytes(_ color: SIMD3<UInt8>) -> [UInt8] { [color.x, color.y, color.z] }
}

extension RGBImage {
    /// This image with `other`, of the same size, over it.
    ///
    /// - Parameter opacity: how much of `other` is seen, from 0 to 1.
    /// - Throws: ``OnDeviceError/image(_:)`` if the sizes differ.
    public func overlaid(
        with other: RGBImage, opacity: Float
    ) throws(OnDeviceError) -> RGBImage {
        guard (width, height) == (other.width, other.height) else {
            throw .image(
                "An image of \(width) x \(height) pixels is overlaid with one of the same size; "
                    + "given \(other.width) x \(other.height).")
        }
        let part = min(max(opacity, 0), 1)
        let mixed = zip(pixels, other.pixels).map { under, over in
            UInt8((Float(under) * (1 - part) + Float(over) * part).rounded())
        }
        return RGBImage(unchecked: mixed, width: width, height: height)
    }

    /// This image with a line around each box, in the colour of its class; boxes of the
    /// likeliest, which come first, are on top.
    public func outlined(_ detections: [Detection]) -> RGBImage {
        var found = pixels
        let line = max(2, max(width, height) / 160)
        for detection in detections.reversed() {
            let color = Coloring.color(ofClass: detection.index + 1)  // that of 0 is black
            let (rows, columns) = detection.box.pixels(width: width, height: height)
            for y in rows {
                let isEdge = min(y - rows.lowerBound, rows.upperBound - 1 - y) < line
                for x in columns
                where isEdge || min(x - columns.lowerBound, columns.upperBound - 1 - x) < line {
                    for channel in 0..<3 {
                        found[(y * width + x) * 3 + channel] = color[channel]
                    }
                }
            }
        }
        return RGBImage(unchecked: found, width: width, height: height)
    }
}

extension Box {
    /// The rows and columns of an image that it covers at least in part.
    fileprivate func pixels(width: Int, height: Int) -> (rows: Range<Int>, columns: Range<Int>)
    {
        func covered(_ low: Float, _ high: Float, of count: Int) -> Range<Int> {
            let first = min(max(Int(low.rounded(.down)), 0), count)
            return first..<max(first, min(Int(high.rounded(.up)), count))
        }
        return (covered(top, bottom, of: height), covered(left, right, of: width))
    }
}

/// Where an image lies in the model's square: `model = image * scale + offset`, an axis each.
public struct Placement: Codable, Sendable, Hashable {
    /// Pixels of the model's square for one of the image: x, y.
    public var scale: SIMD2<Double>
    /// Where the image's upper left corner lies in the model's square; negative if cut off.
    public var offset: SIMD2<Double>
    /// The image's width and height.
    public var imageSize: SIMD2<Int>
    /// The edge of the model's square.
    public var size: Int

    /// The model's square itself: boxes stay where they are, and are cut to it.
    public static func square(_ size: Int) -> Placement {
        Placement(
            scale: SIMD2(1, 1), offset: .zero, imageSize: SIMD2(size, size), size: size)
    }

    /// A box in the model's square as one in the image, cut to the image.
    public func box(_ box: Box) -> Box {
        let first = inImage(SIMD2(Double(box.left), Double(box.top)))
        let last = inImage(SIMD2(Double(box.right), Double(box.bottom)))
        return Box(
            left: Float(first.x), top: Float(first.y), right: Float(last.x),
            bottom: Float(last.y))
    }

    /// A point in the model's square as one in the image, moved to the image's edge if it is
    /// outside.
    public func inImage(_ point: SIMD2<Double>) -> SIMD2<Double> {
        let limit = SIMD2(Double(imageSize.x), Double(imageSize.y))
        return ((point - offset) / scale).clamped(lowerBound: .zero, upperBound: limit)
    }
}

extension Preprocessor {
    /// Where an upright image of `width` x `height` pixels, both positive, lies in the model's
    /// square.
    public func placement(width: Int, height: Int) -> Placement {
        var (scale, offset) = (SIMD2(1.0, 1.0), SIMD2(0.0, 0.0))
        var size = SIMD2(width, height)
        func center(in side: Int, half: Centering.Half = .even) {
            for axis in 0..<2 {
                let centering = Centering(size[axis], in: side, half: half)
                offset[axis] += Double(centering.target - centering.source)
            }
            size = SIMD2(side, side)
        }
        func resize(to target: SIMD2<Int>) {
            for axis in 0..<2 {
                let factor = Double(target[axis]) / Double(size[axis])
                scale[axis] *= factor
                offset[axis] *= factor
            }
            size = target
        }
        if let side = contract.sourceSize {
            center(in: min(width, height), half: .before)
            resize(to: SIMD2(side, side))
        }
        if contract.cropMode == .pad { center(in: max(size.x, size.y)) }
        let target = contract.resizedSize(width: size.x, height: size.y)
        resize(to: SIMD2(target.width, target.height))
        center(in: contract.size)
        return Placement(
            scale: scale, offset: offset, imageSize: SIMD2(width, height), size: contract.size)
    }
}

/// Follows a ``Contract``: from an image of any size to what the model takes.
public struct Preprocessor: Sendable, Hashable {
    /// What is followed.
    public let contract: Contract

    /// How many pixels an image may have on the way; as many as Python allows.
    static let maxPixels = 178_956_970

    /// A preprocessor that follows `contract`.
    public init(_ contract: Contract) { self.contract = contract }

    /// The `size` x `size` pixels that the model sees, the same as Python's
    /// `ondevice.image.preprocess.resize_and_crop`, value for value.
    ///
    /// - Throws: ``OnDeviceError/image(_:)`` if the image is so long and narrow that it would
    ///   become too large on the way; ``OnDeviceError/contract(_:)`` for impossible values.
    public func pixels(
        of image: RGBImage, orientation: Orientation = .up
    ) throws(OnDeviceError) -> RGBImage {
        try contract.check()
        var image = image.upright(from: orientation)
        if let side = contract.sourceSize {
            try checkArea(side, side)
            image = try image.centerSquare().resized(
                width: side, height: side, interpolation: contract.interpolation)
        }
        if contract.cropMode == .pad {
            let side = max(image.width, image.height)
            try checkArea(side, side)
            image = image.centered(side: side, fill: contract.fill)
        }
        let (width, height) = contract.resizedSize(width: image.width, height: image.height)
        try checkArea(width, height)
        let (across, down) = (
            Centering(width, in: contract.size), Centering(height, in: contract.size)
        )
        return image.resized(
            width: width, height: height, columns: across.kept, rows: down.kept,
            contract.interpolation
        ).centered(side: contract.size, fill: contract.surround)
    }

    /// `(pixels / 255 - mean) / std` as float32 of shape (1, 3, height, width).
    ///
    /// A package that takes an image normalizes by itself; one that was exported with
    /// `--input array` takes this.
    public func normalized(_ pixels: RGBImage) -> Tensor {
        let area = pixels.width * pixels.height
        var values: [Float] = []
        values.reserveCapacity(area * 3)
        for channel in 0..<3 {
            let (mean, std) = (Float(contract.mean[channel]), Float(contract.std[channel]))
            let normalized = (0...255).map { (Float($0) / 255 - mean) / std }
            for pixel in 0..<area {
                values.append(normalized[Int(pixels.pixels[pixel * 3 + channel])])
            }
        }
        return Tensor(unchecked: values, shape: [1, 3, pixels.height, pixels.width])
    }

    private func checkArea(_ width: Int, _ height: Int) throws(OnDeviceError) {
        let (area, isTooLarge) = width.multipliedReportingOverflow(by: height)
        guard !isTooLarge, area <= Self.maxPixels else {
            throw .image(
                "The image is so long and narrow that it would take \(width) x \(height) "
                    + "pixels on the way; crop it first.")
        }
    }
}

extension Contract {
    /// What an image is resized to before its centre is cut out: torchvision's and timm's rules.
    func resizedSize(width: Int, height: Int) -> (width: Int, height: Int) {
        let edge = Int((Double(size) / cropPct).rounded(.down))
        let (short, long) = (min(width, height), max(width, height))
        switch cropMode {
        case .squash, .pad:
            return (edge, edge)
        case .center:
            let other = Int(Double(edge * long) / Double(short))
            return width <= height ? (edge, other) : (other, edge)
        case .border:
            let ratio = Double(long) / Double(edge)
            let edges = [width, height].map {
                max(1, Int((Double($0) / ratio).rounded(.toNearestOrEven)))
            }
            return (edges[0], edges[1])
        }
    }

    /// The colour around a resized image that is smaller than the model's square.
    var surround: SIMD3<UInt8> {
        guard cropMode == .border else { return fill }
        let color = (mean * 255).rounded(.toNearestOrEven)
        return SIMD3(UInt8(color.x), UInt8(color.y), UInt8(color.z))
    }
}

/// Colours for masks and depth maps, so that a person sees them.
public enum Coloring {
    /// The colour of a class in a mask: Pascal VOC's palette of 256; class 0 is black.
    public static func color(ofClass index: Int) -> SIMD3<UInt8> { fatalError() }

    /// A mask of classes as an image.
    ///
    /// - Parameter classes: `width * height` positions of classes, row by row.
    /// - Throws: ``OnDeviceError/image(_:)`` if there are more or fewer.
    public static func image(
        classes: [Int], width: Int, height: Int
    ) throws(OnDeviceError) -> RGBImage { fatalError() }

    /// The likeliest class of each position of a (classes, height, width) or
    /// (1, classes, height, width) array.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)``.
    public static func classes(_ scores: Tensor) throws(OnDeviceError) -> [Int] { fatalError() }

    /// A depth map as an image: the smallest value dark, the largest light; NaN is black.
    ///
    /// - Parameter depth: (height, width), whatever axes of one are before.
    /// - Throws: ``OnDeviceError/shape(_:)``.
    public static func image(depth: Tensor) throws(OnDeviceError) -> RGBImage { fatalError() }
}

extension RGBImage {
    /// This image with `other`, of the same size, over it.
    ///
    /// - Parameter opacity: how much of `other` is seen, from 0 to 1.
    /// - Throws: ``OnDeviceError/image(_:)`` if the sizes differ.
    public func overlaid(
        with other: RGBImage, opacity: Float
    ) throws(OnDeviceError) -> RGBImage { fatalError() }
}

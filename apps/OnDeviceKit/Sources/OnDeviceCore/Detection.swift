/// A rectangle in an image, in pixels from its upper left corner.
public struct Box: Codable, Sendable, Hashable {
    /// The edges: `left <= right`, `top <= bottom`.
    public var left, top, right, bottom: Float

    /// A box with these edges.
    public init(left: Float, top: Float, right: Float, bottom: Float) {
        (self.left, self.top, self.right, self.bottom) = (left, top, right, bottom)
    }

    /// The area of both boxes' intersection over that of their union: 1 if they are the same.
    public func overlap(with other: Box) -> Float { fatalError() }
}

/// How a model writes a box as four numbers.
public enum BoxFormat: String, Codable, Sendable, CaseIterable {
    /// Left, top, right, bottom.
    case corners
    /// Centre x, centre y, width, height.
    case center
}

/// Where an image lies in the model's square: `model = image * scale + offset`, an axis each.
public struct Placement: Codable, Sendable, Hashable {
    /// Pixels of the model's square for one of the image: x, y.
    public var scale: SIMD2<Double>
    /// Where the image's upper left corner lies in the model's square; negative if it is cut off.
    public var offset: SIMD2<Double>
    /// The image's width and height.
    public var imageSize: SIMD2<Int>
    /// The edge of the model's square.
    public var size: Int

    /// A box in the model's square as one in the image, cut to the image.
    public func box(_ box: Box) -> Box { fatalError() }
}

/// A thing in an image.
public struct Detection: Codable, Sendable, Hashable {
    /// Where it is, in pixels of the image.
    public var box: Box
    /// What it is.
    public var label: String
    /// How likely it is there, from 0 to 1.
    public var score: Float
    /// The position of its class among the model's.
    public var index: Int

    /// A detection.
    public init(box: Box, label: String, score: Float, index: Int) {
        (self.box, self.label, self.score, self.index) = (box, label, score, index)
    }
}

/// From a detector's arrays to ``Detection`` values.
public struct BoxDecoder: Sendable, Hashable {
    /// How four numbers are a box.
    public var format = BoxFormat.center
    /// Whether coordinates are fractions of the model's square, from 0 to 1, or its pixels.
    public var areFractions = false
    /// Detections that are less likely are left out.
    public var threshold: Float = 0.25
    /// Of two of a class that overlap more, the less likely is left out; 1 keeps all.
    public var maxOverlap: Float = 0.5
    /// At most so many are kept, the most likely.
    public var limit = 100

    /// The defaults, to change from.
    public init() {}

    /// The things that are found, most likely first.
    ///
    /// - Parameters:
    ///   - boxes: (N, 4) or (1, N, 4), in the model's square.
    ///   - scores: (N, classes) or (1, N, classes) probabilities.
    /// - Throws: ``OnDeviceError/shape(_:)`` or ``OnDeviceError/labels(_:)``.
    public func detections(
        boxes: Tensor, scores: Tensor, labels: [String], placement: Placement
    ) throws(OnDeviceError) -> [Detection] { fatalError() }

    /// Non-maximum suppression: the positions of the boxes that stay, most likely first.
    ///
    /// Of two boxes of one class that overlap more than `maxOverlap` the less likely goes; of
    /// equals, the later.
    public static func suppress(
        _ boxes: [Box], scores: [Float], classes: [Int], maxOverlap: Float
    ) -> [Int] { fatalError() }
}

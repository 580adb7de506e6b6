/// A rectangle in an image, in pixels from its upper left corner.
public struct Box: Codable, Sendable, Hashable {
    /// The edges: `left <= right`, `top <= bottom`.
    public var left, top, right, bottom: Float

    /// A box with these edges.
    public init(left: Float, top: Float, right: Float, bottom: Float) {
        (self.left, self.top, self.right, self.bottom) = (left, top, right, bottom)
    }

    /// In square pixels; 0 if the edges are in the wrong order.
    public var area: Float { max(0, right - left) * max(0, bottom - top) }

    /// The area of both boxes' intersection over that of their union: 1 if they are the same.
    public func overlap(with other: Box) -> Float {
        let both = Box(
            left: max(left, other.left), top: max(top, other.top),
            right: min(right, other.right), bottom: min(bottom, other.bottom)
        ).area
        let either = area + other.area - both
        return either > 0 ? both / either : 0
    }
}

/// How a model writes a box as four numbers.
public enum BoxFormat: String, Codable, Sendable, CaseIterable {
    /// Left, top, right, bottom.
    case corners
    /// Centre x, centre y, width, height.
    case center

    /// The box of four numbers.
    func box(_ a: Float, _ b: Float, _ c: Float, _ d: Float) -> Box {
        switch self {
        case .corners: Box(left: a, top: b, right: c, bottom: d)
        case .center: Box(left: a - c / 2, top: b - d / 2, right: a + c / 2, bottom: b + d / 2)
        }
    }
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
public struct BoxDecoder: Codable, Sendable, Hashable {
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

    /// How the boxes of a package are read that ondevice exported with this metadata: as
    /// `Detector.objects` of the Python package reads them.
    ///
    /// - Throws: ``OnDeviceError/contract(_:)`` if the metadata is damaged.
    public init(metadata: [String: String]) throws(OnDeviceError) {
        (areFractions, threshold, maxOverlap, limit) = (true, 0.5, 1, .max)
        guard let said = metadata[Self.metadataKey] else { return }
        guard let value = Float(said), (0...1).contains(value) else {
            throw .contract(
                "\(Self.metadataKey) is a number from 0 to 1; the package says \(said).")
        }
        maxOverlap = value
    }

    /// Where a package's metadata has ``maxOverlap``; a detector whose boxes need no
    /// suppression has nothing there.
    public static let metadataKey = "ondevice.max_overlap"

    /// The things that are found, most likely first: each class of a box that is likely enough.
    ///
    /// - Parameters:
    ///   - boxes: (N, 4) or (1, N, 4), in the model's square.
    ///   - scores: (N, classes) or (1, N, classes) probabilities.
    ///   - labels: a name for each class, or none at all.
    ///   - placement: where the image lies in the model's square.
    /// - Throws: ``OnDeviceError/shape(_:)`` or ``OnDeviceError/labels(_:)``.
    public func detections(
        boxes: Tensor, scores: Tensor, labels: [String], placement: Placement
    ) throws(OnDeviceError) -> [Detection] {
        let (rows, classes) = try checked(boxes: boxes, scores: scores, labels: labels)
        let scale = areFractions ? Float(placement.size) : 1
        var found: [Detection] = []
        for row in 0..<rows {
            let values = scores.values[(row * classes)..<((row + 1) * classes)]
            let edges = boxes.values[(row * 4)..<(row * 4 + 4)].map { $0 * scale }
            guard edges.allSatisfy(\.isFinite) else { continue }
            let box = placement.box(format.box(edges[0], edges[1], edges[2], edges[3]))
            for (index, score) in values.enumerated() where score >= threshold {
                let label = labels.isEmpty ? "class \(index)" : labels[index]
                found.append(Detection(box: box, label: label, score: score, index: index))
            }
        }
        let kept = Self.suppress(
            found.map(\.box), scores: found.map(\.score), classes: found.map(\.index),
            maxOverlap: maxOverlap)
        return kept.prefix(limit).map { found[$0] }
    }

    /// Non-maximum suppression: the positions of the boxes that stay, most likely first.
    ///
    /// Of two boxes of one class that overlap more than `maxOverlap` the less likely goes; of
    /// equals, the later.
    public static func suppress(
        _ boxes: [Box], scores: [Float], classes: [Int], maxOverlap: Float
    ) -> [Int] {
        let order = Probabilities.top(scores, count: scores.count)
        guard maxOverlap < 1 else { return order }
        var kept: [Int] = []
        for candidate in order {
            let isCovered = kept.contains {
                classes[$0] == classes[candidate]
                    && boxes[$0].overlap(with: boxes[candidate]) > maxOverlap
            }
            if !isCovered { kept.append(candidate) }
        }
        return kept
    }

    private func checked(
        boxes: Tensor, scores: Tensor, labels: [String]
    ) throws(OnDeviceError) -> (rows: Int, classes: Int) {
        let (found, likely) = (boxes.withoutBatch(axes: 2), scores.withoutBatch(axes: 2))
        guard let found, let likely, found[1] == 4, found[0] == likely[0] else {
            throw .shape(
                "Boxes of shape (N, 4) and scores of shape (N, classes) are expected; given "
                    + "\(boxes.shape) and \(scores.shape).")
        }
        guard labels.isEmpty || labels.count == likely[1] else {
            throw .labels(
                "There are \(labels.count) labels for \(likely[1]) classes; give the labels "
                    + "that were exported with the model.")
        }
        return (likely[0], likely[1])
    }
}

extension Tensor {
    /// The last `axes` lengths, if all before are 1.
    func withoutBatch(axes: Int) -> [Int]? {
        guard shape.count >= axes, shape.dropLast(axes).allSatisfy({ $0 == 1 }) else {
            return nil
        }
        return Array(shape.suffix(axes))
    }
}

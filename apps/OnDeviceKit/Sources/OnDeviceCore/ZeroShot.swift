import Foundation

/// Classes that are named by words: the cosines of an image's vector with theirs.
public struct ZeroShot: Sendable, Hashable {
    /// The names of the classes.
    public let labels: [String]
    /// A unit vector for each label.
    public let vectors: [[Float]]
    /// What cosines are multiplied by before the softmax.
    public let scale: Float

    /// CLIP's template for a label.
    public static let template = "a photo of a {}."

    /// The texts to encode: every label in the first template, then in the next.
    ///
    /// - Throws: ``OnDeviceError/labels(_:)`` for labels that are empty or given twice, fewer
    ///   than two of them, or a template without `{}`.
    public static func texts(
        labels: [String], templates: [String] = [template]
    ) throws(OnDeviceError) -> [String] {
        let names = try checked(labels)
        guard !templates.isEmpty, templates.allSatisfy({ $0.contains("{}") }) else {
            throw .labels("Every template needs a {} where the label goes.")
        }
        return templates.flatMap { template in
            names.map { template.replacingOccurrences(of: "{}", with: $0) }
        }
    }

    /// The classes of these labels.
    ///
    /// - Parameters:
    ///   - embeddings: the unit vectors of ``texts(labels:templates:)``, in that order; those
    ///     of a label are averaged.
    ///   - scale: `exp(logit_scale)` of the model; at most 100 counts.
    /// - Throws: ``OnDeviceError/labels(_:)``, ``OnDeviceError/shape(_:)``.
    public init(
        labels: [String], embeddings: [[Float]], scale: Float = 100
    ) throws(OnDeviceError) {
        let names = try Self.checked(labels)
        let dim = embeddings.first?.count ?? 0
        guard dim > 0, embeddings.count.isMultiple(of: names.count),
            embeddings.allSatisfy({ $0.count == dim })
        else {
            throw .shape(
                "A vector for each text of \(names.count) labels is expected, all of one "
                    + "length; given \(embeddings.count).")
        }
        self.labels = names
        self.scale = min(scale, 100)
        vectors = names.indices.map { label in
            var sum = [Float](repeating: 0, count: dim)
            for row in stride(from: label, to: embeddings.count, by: names.count) {
                for i in 0..<dim { sum[i] += embeddings[row][i] }
            }
            return unit(sum)
        }
    }

    /// The `count` likeliest labels of an image's unit vector, most likely first.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)`` if the vector is longer or shorter than a label's.
    public func predictions(
        for image: [Float], count: Int = 5
    ) throws(OnDeviceError) -> [Prediction] {
        guard image.count == vectors[0].count else {
            throw .shape(
                "The image's vector has \(image.count) values, those of the labels "
                    + "\(vectors[0].count); both have to come from one model.")
        }
        let logits = vectors.map { zip($0, image).reduce(0) { $0 + $1.0 * $1.1 } * scale }
        return try Prediction.top(logits: logits, labels: labels, count: count)
    }

    private static func checked(_ labels: [String]) throws(OnDeviceError) -> [String] {
        let names = labels.map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }
        guard names.count > 1 else {
            throw .labels(
                "One label is no choice: every image would be it to 100 %; give two or more, "
                    + "such as what else it may be.")
        }
        try Labels.check(names)
        return names
    }
}

/// A vector of the same direction and length 1; of zeros, zeros.
func unit(_ vector: [Float]) -> [Float] {
    let length = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return vector.map { $0 / max(length, 1e-12) }
}

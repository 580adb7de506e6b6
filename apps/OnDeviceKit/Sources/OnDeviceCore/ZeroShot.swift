/// Classes that are named by words: the scores of an image's vector with theirs.
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
    ) throws(OnDeviceError) -> [String] { fatalError() }

    /// - Parameters:
    ///   - embeddings: the unit vectors of ``texts(labels:templates:)``, in that order; those
    ///     of a label are averaged.
    ///   - scale: `exp(logit_scale)` of the model, at most 100.
    /// - Throws: ``OnDeviceError/labels(_:)``, ``OnDeviceError/shape(_:)``.
    public init(
        labels: [String], embeddings: [[Float]], scale: Float = 100
    ) throws(OnDeviceError) { fatalError() }

    /// The `count` likeliest labels of an image's unit vector, most likely first.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)`` if the vector is longer or shorter.
    public func predictions(
        for image: [Float], count: Int = 5
    ) throws(OnDeviceError) -> [Prediction] { fatalError() }
}

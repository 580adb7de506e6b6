/// One class with its probability.
public struct Prediction: Codable, Sendable, Hashable {
    /// The name of the class; "class 7" if it has none.
    public var label: String
    /// The probability, from 0 to 1.
    public var score: Float
    /// The position of the class among the model's.
    public var index: Int

    /// A prediction.
    public init(label: String, score: Float, index: Int) {
        (self.label, self.score, self.index) = (label, score, index)
    }
}

/// Probabilities of a model's scores.
public enum Probabilities {
    /// The softmax of `logits / temperature`; of nothing, nothing.
    public static func softmax(_ logits: [Float], temperature: Float = 1) -> [Float] {
        fatalError()
    }

    /// The sigmoid of each logit: classes that do not exclude each other.
    public static func sigmoid(_ logits: [Float]) -> [Float] { fatalError() }

    /// The softmax; of one logit two: that the class is not there, and that it is.
    public static func of(logits: [Float], temperature: Float = 1) -> [Float] { fatalError() }

    /// The positions of the `count` largest values, the largest first; of equals, the earlier.
    public static func top(_ values: [Float], count: Int) -> [Int] { fatalError() }
}

extension Prediction {
    /// The `count` most likely classes, most likely first.
    ///
    /// - Throws: ``OnDeviceError/labels(_:)`` if there are labels, but not one a class.
    public static func top(
        logits: [Float], labels: [String], count: Int = 5, temperature: Float = 1
    ) throws(OnDeviceError) -> [Prediction] { fatalError() }
}

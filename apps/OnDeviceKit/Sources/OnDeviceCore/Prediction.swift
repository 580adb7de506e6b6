import Foundation

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

    /// The `count` most likely classes, most likely first; of equals, the earlier.
    ///
    /// One logit is two classes: the sigmoid of the logit is the probability of the second.
    ///
    /// - Parameters:
    ///   - labels: a name for each class, or none at all. One logit may have one name, of what
    ///     is there if the logit is positive.
    ///   - temperature: what logits are divided by; larger ones are less sure. Positive.
    /// - Throws: ``OnDeviceError/labels(_:)`` if there are labels that do not fit.
    public static func top(
        logits: [Float], labels: [String], count: Int = 5, temperature: Float = 1
    ) throws(OnDeviceError) -> [Prediction] {
        let names = try classNames(labels, logits: logits.count)
        let scores = Probabilities.of(logits: logits, temperature: temperature)
        return Probabilities.top(scores, count: count).map {
            Prediction(
                label: names.isEmpty ? "class \($0)" : names[$0], score: scores[$0], index: $0)
        }
    }

    /// A name for each class that has a probability, or none.
    private static func classNames(
        _ labels: [String], logits: Int
    ) throws(OnDeviceError) -> [String] {
        try Labels.check(labels)
        if logits == 1, let label = labels.first, labels.count == 1 {
            return ["not \(label)", label]
        }
        let classes = logits == 1 ? 2 : logits
        guard labels.isEmpty || labels.count == classes else {
            throw .labels(
                "There are \(labels.count) labels for \(classes) classes; give the labels that "
                    + "were exported with the model.")
        }
        return labels
    }
}

/// The names of a model's classes.
public enum Labels {
    /// Reads a UTF-8 file with a label on each line, in the order of the classes.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, ``OnDeviceError/labels(_:)``.
    public static func read(contentsOf url: URL) throws(OnDeviceError) -> [String] {
        guard let text = String(bytes: try FileBytes.read(url), encoding: .utf8) else {
            throw .labels(
                "\(url.lastPathComponent) is no UTF-8 text with a label on each line.")
        }
        let lines = text.drop { $0 == "\u{FEFF}" }.split(
            omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        let labels = lines.map { $0.trimmingCharacters(in: .whitespaces) }
        let last = labels.lastIndex { !$0.isEmpty } ?? -1
        try check(Array(labels[...last]))
        return Array(labels[...last])
    }

    /// - Throws: ``OnDeviceError/labels(_:)`` for labels that are empty or there twice.
    static func check(_ labels: [String]) throws(OnDeviceError) {
        if let empty = labels.firstIndex(where: \.isEmpty) {
            throw .labels("Label \(empty + 1) is empty; every class needs a name.")
        }
        var seen: Set<String> = []
        if let twice = labels.first(where: { !seen.insert($0).inserted }) {
            throw .labels("The label “\(twice)” is there twice; every class needs its own.")
        }
    }
}

/// Probabilities of a model's scores.
public enum Probabilities {
    /// The softmax of `logits / temperature`; of nothing, nothing.
    public static func softmax(_ logits: [Float], temperature: Float = 1) -> [Float] {
        precondition(temperature > 0, "A temperature is positive.")
        guard let largest = logits.max() else { return [] }
        let powers = logits.map { exp(($0 - largest) / temperature) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    /// The sigmoid of each logit: classes that do not exclude each other.
    public static func sigmoid(_ logits: [Float]) -> [Float] { logits.map(sigmoid) }

    /// The softmax; of one logit two: that the class is not there, and that it is.
    public static func of(logits: [Float], temperature: Float = 1) -> [Float] {
        guard logits.count == 1 else { return softmax(logits, temperature: temperature) }
        return sigmoid([-logits[0] / temperature, logits[0] / temperature])
    }

    /// The positions of the `count` largest values, the largest first; of equals, the earlier.
    /// NaN is smaller than all.
    public static func top(_ values: [Float], count: Int) -> [Int] {
        func isBefore(_ a: Int, _ b: Int) -> Bool {
            let (first, second) = (rank(values[a]), rank(values[b]))
            return first == second ? a < b : first > second
        }
        guard count > 0 else { return [] }
        if count >= values.count / 16 {
            return Array(values.indices.sorted(by: isBefore).prefix(count))
        }
        var best: [Int] = []  // few of many: sorted, and nearly always left as they are
        for position in values.indices {
            if best.count == count {
                guard rank(values[position]) > rank(values[best[count - 1]]) else { continue }
                best.removeLast()
            }
            let place = best.firstIndex { isBefore(position, $0) } ?? best.endIndex
            best.insert(position, at: place)
        }
        return best
    }

    private static func rank(_ value: Float) -> Float { value.isNaN ? -.infinity : value }

    private static func sigmoid(_ logit: Float) -> Float {
        let power = exp(-abs(logit))
        return logit < 0 ? power / (1 + power) : 1 / (1 + power)
    }
}

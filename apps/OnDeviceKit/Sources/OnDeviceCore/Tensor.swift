/// An array of float32 with its shape, as it comes out of a model.
public struct Tensor: Codable, Sendable, Hashable {
    /// The lengths of the axes, the slowest first.
    public let shape: [Int]
    /// The values, the last axis fastest.
    public let values: [Float]

    /// An array of these values.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)`` if the values do not fill the shape.
    public init(shape: [Int], values: [Float]) throws(OnDeviceError) {
        var (count, isPossible) = (1, true)
        for edge in shape {
            let (product, isTooLarge) = count.multipliedReportingOverflow(by: edge)
            (count, isPossible) = (product, isPossible && edge >= 0 && !isTooLarge)
        }
        guard isPossible, count == values.count else {
            throw .shape(
                "The values of an array have to fill its shape \(shape); given \(values.count)."
            )
        }
        self.init(unchecked: values, shape: shape)
    }

    init(unchecked values: [Float], shape: [Int]) {
        (self.shape, self.values) = (shape, values)
    }

    private enum CodingKeys: CodingKey {
        case shape, values
    }

    /// Reads shape and values.
    ///
    /// - Throws: ``OnDeviceError/shape(_:)`` if the values do not fill the shape.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        try self.init(
            shape: fields.decode([Int].self, forKey: .shape),
            values: fields.decode([Float].self, forKey: .values))
    }
}

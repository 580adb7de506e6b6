/// An array of float32 with its shape, as it comes out of a model.
public struct Tensor: Codable, Sendable, Hashable {
    /// The lengths of the axes, the slowest first.
    public let shape: [Int]
    /// The values, the last axis fastest.
    public let values: [Float]

    /// - Throws: ``OnDeviceError/shape(_:)`` if the values do not fill the shape.
    public init(shape: [Int], values: [Float]) throws(OnDeviceError) {
        guard shape.allSatisfy({ $0 >= 0 }), shape.reduce(1, *) == values.count else {
            throw .shape(
                "An array of shape \(shape) has \(shape.reduce(1, *)) values; given "
                    + "\(values.count).")
        }
        (self.shape, self.values) = (shape, values)
    }
}

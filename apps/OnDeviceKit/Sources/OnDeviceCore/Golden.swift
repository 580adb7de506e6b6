import Foundation

/// A tiny image with what the model has to make of it: `X.golden.json` beside a package.
public struct Golden: Codable, Sendable, Hashable {
    /// The version of the format that this type reads.
    public static let version = 1

    /// Pixels in the file: base64 of `height * width * 3` bytes.
    public struct Image: Codable, Sendable, Hashable {
        /// Pixels in a row.
        public var width: Int
        /// Rows.
        public var height: Int
        /// The pixels, row by row.
        public var rgb: Data
    }

    /// Some of the normalized values: flat positions in (3, size, size), and what is there.
    public struct Samples: Codable, Sendable, Hashable {
        /// Flat positions, channels first.
        public var positions: [Int]
        /// The values there.
        public var values: [Float]
    }

    /// The version of the format.
    public var version: Int
    /// The image that goes in.
    public var image: Image
    /// How it becomes the model's input.
    public var contract: Contract
    /// What the model sees of it, (size, size, 3).
    public var pixels: Image
    /// Some normalized values.
    public var normalized: Samples?
    /// What comes out, by name.
    public var outputs: [String: Tensor]
    /// The largest difference that is fine, as a part of the largest expected absolute value
    /// of an output.
    public var tolerance: Float

    /// Reads and checks a golden file.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, ``OnDeviceError/golden(_:)``.
    public init(contentsOf url: URL) throws(OnDeviceError) { fatalError() }

    /// Reads and checks the JSON of a golden file.
    ///
    /// - Throws: ``OnDeviceError/golden(_:)``.
    public init(json: Data) throws(OnDeviceError) { fatalError() }
}

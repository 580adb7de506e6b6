import Foundation

/// A tiny image with what the model has to make of it: `X.golden.json` beside a package.
public struct Golden: Codable, Sendable, Hashable {
    /// The version of the format that this type reads.
    public static let version = 1

    /// Pixels in the file: base64 of `height * width * 3` bytes.
    public struct Pixels: Codable, Sendable, Hashable {
        /// Pixels in a row.
        public var width: Int
        /// Rows.
        public var height: Int
        /// The values, row by row.
        public var rgb: Data

        /// The same as an image.
        ///
        /// - Throws: ``OnDeviceError/image(_:)`` if the bytes do not fill it.
        public func image() throws(OnDeviceError) -> RGBImage {
            try RGBImage(width: width, height: height, pixels: [UInt8](rgb))
        }
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
    /// The image that goes in, upright.
    public var image: Pixels
    /// How it becomes the model's input.
    public var contract: Contract
    /// What the model sees of it: `size` x `size` pixels.
    public var pixels: Pixels
    /// Some normalized values.
    public var normalized: Samples?
    /// What comes out, by name.
    public var outputs: [String: Tensor]
    /// The largest difference that is fine, as a part of an output's largest absolute value.
    public var tolerance: Float

    /// Reads and checks a golden file.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, ``OnDeviceError/golden(_:)``.
    public init(contentsOf url: URL) throws(OnDeviceError) {
        try self.init(json: FileBytes.read(url))
    }

    /// Reads and checks the JSON of a golden file.
    ///
    /// - Throws: ``OnDeviceError/golden(_:)``; ``OnDeviceError/contract(_:)`` for the contract
    ///   in it.
    public init(json: Data) throws(OnDeviceError) {
        let found = try decoded(Version.self, from: json) {
            .golden("The golden file cannot be read: \($0).")
        }
        guard found.version == Self.version else {
            throw .golden(
                "The golden file is of version \(found.version), this app reads "
                    + "\(Self.version); export the model again, or update the app.")
        }
        self = try decoded(Golden.self, from: json) {
            .golden("The golden file cannot be read: \($0).")
        }
        try check()
    }

    private struct Version: Decodable {
        let version: Int
    }

    private func check() throws(OnDeviceError) {
        let side = contract.size
        let area = 3 * side * side
        let fits =
            (try? image.image()) != nil && (try? pixels.image()) != nil
            && (pixels.width, pixels.height) == (side, side) && tolerance >= 0
            && normalized.map {
                $0.positions.count == $0.values.count
                    && $0.positions.allSatisfy { (0..<area).contains($0) }
            } ?? true
        guard fits else {
            throw .golden("The golden file is damaged: its parts do not fit each other.")
        }
    }
}

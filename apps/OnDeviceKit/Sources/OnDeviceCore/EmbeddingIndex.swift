import Foundation

/// One row of an index: the path of its image, and the cosine with what was looked up.
public struct Match: Codable, Sendable, Hashable {
    /// The path of the image, as it was given to `ondevice encode`.
    public var path: String
    /// The cosine, from -1 to 1.
    public var score: Float
    /// The position of the row.
    public var row: Int

    /// A match.
    public init(path: String, score: Float, row: Int) {
        (self.path, self.score, self.row) = (path, score, row)
    }
}

/// Embeddings of images, in the `.safetensors` file that `ondevice encode` writes.
///
/// Rows are mapped, not read: a search takes the time of reading them from memory once.
public struct EmbeddingIndex: Sendable {
    /// What an index says of itself, the JSON in its metadata.
    public struct Info: Codable, Sendable, Hashable {
        /// The model that made the rows.
        public var model: String
        /// The hash of its weights.
        public var weights: String
        /// Whether all rows have length 1.
        public var normalized: Bool
        /// Values in a row.
        public var dim: Int

        /// What an index says of itself.
        public init(model: String, weights: String, normalized: Bool, dim: Int) {
            (self.model, self.weights) = (model, weights)
            (self.normalized, self.dim) = (normalized, dim)
        }
    }

    /// What made the rows.
    public let info: Info
    /// How many rows there are.
    public let count: Int

    /// Opens and checks an index.
    ///
    /// - Throws: ``OnDeviceError/index(_:)`` if it is damaged or something else.
    public init(contentsOf url: URL) throws(OnDeviceError) { fatalError() }

    /// The path of the image behind a row from 0 to `count - 1`.
    public func path(ofRow row: Int) -> String { fatalError() }

    /// The values of a row.
    public func embedding(ofRow row: Int) -> [Float] { fatalError() }

    /// The `count` rows most similar to `query`, most similar first; of equals, the earlier.
    ///
    /// - Throws: ``OnDeviceError/index(_:)`` if the query is longer or shorter than a row.
    public func search(_ query: [Float], count: Int = 5) throws(OnDeviceError) -> [Match] {
        fatalError()
    }

    /// Writes an index that this type and `ondevice search` read.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, or ``OnDeviceError/index(_:)`` if rows and paths
    ///   do not fit.
    public static func write(
        _ rows: [[Float]], paths: [String], info: Info, to url: URL
    ) throws(OnDeviceError) { fatalError() }
}

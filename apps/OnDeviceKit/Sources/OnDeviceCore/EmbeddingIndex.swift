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

    /// Where a file's metadata has the JSON.
    static let metadataKey = "ondevice.embeddings"

    /// What made the rows.
    public let info: Info
    /// How many rows there are.
    public let count: Int
    private let name: String
    private let file: MappedFile
    private let rows, ends, paths: Range<Int>

    /// Opens and checks an index.
    ///
    /// - Throws: ``OnDeviceError/index(_:)`` if it is damaged or something else.
    public init(contentsOf url: URL) throws(OnDeviceError) {
        guard url.pathExtension == "safetensors" else {
            throw .index(
                "\(url.path) is no index that an app reads: it has to end with .safetensors, as "
                    + "`ondevice encode --out X.safetensors` writes it.")
        }
        do throws(Invalid) {
            try self.init(Safetensors(contentsOf: url), name: url.path)
        } catch {
            throw .index("\(url.path) is no readable index: \(error.reason).")
        }
    }

    private init(_ found: Safetensors, name: String) throws(Invalid) {
        guard let json = found.metadata[Self.metadataKey],
            let info = try? JSONDecoder().decode(Info.self, from: Data(json.utf8))
        else { throw Invalid("it does not say what model made it") }
        guard let rows = found.arrays["embeddings"], let ends = found.arrays["path_ends"],
            let paths = found.arrays["paths"],
            [rows.type, ends.type, paths.type] == ["F32", "I64", "U8"], rows.shape.count == 2,
            ends.shape == [rows.shape[0]], paths.shape.count == 1
        else { throw Invalid("it lacks embeddings or their paths") }
        guard rows.shape[0] > 0, rows.shape[1] > 0, rows.shape[1] == info.dim else {
            throw Invalid("its rows are of shape \(rows.shape), said to be of \(info.dim)")
        }
        (self.name, self.info, self.count) = (name, info, rows.shape[0])
        (file, self.rows, self.ends, self.paths) = (
            found.file, rows.bytes, ends.bytes, paths.bytes
        )
        var last = 0
        for row in 0..<count {
            guard end(ofRow: row) > last, end(ofRow: row) <= paths.bytes.count else {
                throw Invalid("its paths do not belong to its rows")
            }
            last = end(ofRow: row)
        }
        guard last == paths.bytes.count else {
            throw Invalid("its paths do not belong to its rows")
        }
    }

    /// The path of the image behind a row from 0 to `count - 1`.
    public func path(ofRow row: Int) -> String {
        let start = row == 0 ? 0 : end(ofRow: row - 1)
        let bytes = file.bytes[paths][
            (paths.lowerBound + start)..<(paths.lowerBound + end(ofRow: row) - 1)]
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The values of a row from 0 to `count - 1`.
    public func embedding(ofRow row: Int) -> [Float] {
        precondition((0..<count).contains(row), "The index has \(count) rows.")
        return (0..<info.dim).map {
            file.bytes.loadUnaligned(
                fromByteOffset: rows.lowerBound + (row * info.dim + $0) * 4, as: Float.self)
        }
    }

    /// The `count` rows most similar to `query`, most similar first; of equals, the earlier.
    ///
    /// All rows are compared, exactly.
    ///
    /// - Throws: ``OnDeviceError/index(_:)`` if the query is longer or shorter than a row.
    public func search(_ query: [Float], count: Int = 5) throws(OnDeviceError) -> [Match] {
        guard query.count == info.dim else {
            throw .index(
                "\(name) has rows of \(info.dim) values, the query has \(query.count); both "
                    + "have to come from one model.")
        }
        let scores = cosines(unit(query))
        return Probabilities.top(scores, count: count).map {
            Match(path: path(ofRow: $0), score: scores[$0], row: $0)
        }
    }

    /// The cosine of each row with a unit vector.
    private func cosines(_ query: [Float]) -> [Float] {
        let length = info.dim
        return query.withUnsafeBytes { query in
            (0..<count).map { row in
                let bytes = UnsafeRawBufferPointer(
                    rebasing: file.bytes[rows][
                        (rows.lowerBound + row * length * 4)..<(rows.lowerBound + (row + 1)
                            * length * 4)
                    ])
                let product = dot(bytes, query, count: length)
                if info.normalized { return product }
                return product / max(dot(bytes, bytes, count: length).squareRoot(), 1e-12)
            }
        }
    }

    private func end(ofRow row: Int) -> Int {
        let value = file.bytes.loadUnaligned(
            fromByteOffset: ends.lowerBound + row * 8, as: UInt64.self)
        return Int(exactly: UInt64(littleEndian: value)) ?? -1
    }
}

/// The sum of the products of two rows of float32, in 32 sums side by side.
private func dot(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, count: Int) -> Float
{
    var sums = (SIMD8<Float>.zero, SIMD8<Float>.zero, SIMD8<Float>.zero, SIMD8<Float>.zero)
    func product(_ i: Int) -> SIMD8<Float> {
        a.loadUnaligned(fromByteOffset: i &* 4, as: SIMD8<Float>.self)
            * b.loadUnaligned(fromByteOffset: i &* 4, as: SIMD8<Float>.self)
    }
    var i = 0
    while i &+ 32 <= count {
        sums.0 += product(i)
        sums.1 += product(i &+ 8)
        sums.2 += product(i &+ 16)
        sums.3 += product(i &+ 24)
        i &+= 32
    }
    var sum = (sums.0 + sums.1 + sums.2 + sums.3).sum()
    while i < count {
        sum +=
            a.loadUnaligned(fromByteOffset: i &* 4, as: Float.self)
            * b.loadUnaligned(fromByteOffset: i &* 4, as: Float.self)
        i &+= 1
    }
    return sum
}

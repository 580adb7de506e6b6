import Foundation

/// A `.safetensors` file that nobody vouches for, mapped into memory.
///
/// The header is checked against the file's size before anything is read by it.
struct Safetensors: Sendable {
    /// An array of the file.
    struct Array: Sendable {
        let type: String
        let shape: [Int]
        /// Its bytes in the file.
        let bytes: Range<Int>
    }

    let file: MappedFile
    let arrays: [String: Array]
    let metadata: [String: String]

    private static let sizes = [
        "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
        "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    ]
    private static let maxHeader = 4 << 20

    init(contentsOf url: URL) throws(Invalid) {
        file = try MappedFile(url)
        guard file.bytes.count >= 8 else { throw Invalid("it has \(file.bytes.count) bytes") }
        let length = UInt64(littleEndian: file.bytes.loadUnaligned(as: UInt64.self))
        guard length <= min(Self.maxHeader, file.bytes.count - 8) else {
            throw Invalid(
                "a header of \(length) bytes does not fit a file of \(file.bytes.count)")
        }
        let start = 8 + Int(length)
        let header: Header
        do {
            header = try JSONDecoder().decode(Header.self, from: Data(file.bytes[8..<start]))
        } catch {
            throw Invalid("its header is no table of arrays")
        }
        metadata = header.metadata
        arrays = try Self.checked(header.arrays, start: start, end: file.bytes.count)
    }

    /// The arrays have to follow each other without a gap and fill the file.
    private static func checked(
        _ entries: [String: Entry], start: Int, end: Int
    ) throws(Invalid) -> [String: Array] {
        var (found, position) = ([String: Array](), 0)
        for (name, entry) in entries.sorted(by: { $0.value.isBefore($1.value) }) {
            guard entry.offsets.count == 2, entry.offsets[0] == position,
                entry.offsets[1] >= position, entry.offsets[1] <= end - start
            else {
                throw Invalid(
                    "\(name) does not begin at byte \(position), or ends after the file")
            }
            guard let size = sizes[entry.dtype], entry.bytes(of: size) == entry.length else {
                throw Invalid("\(name) of shape \(entry.shape) does not fill its bytes")
            }
            position = entry.offsets[1]
            found[name] = Array(
                type: entry.dtype, shape: entry.shape,
                bytes: (start + entry.offsets[0])..<(start + position))
        }
        guard position == end - start else {
            throw Invalid("\(end - start - position) bytes at its end belong to no array")
        }
        return found
    }
}

/// Why a file cannot be read, as a part of a sentence.
struct Invalid: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

private struct Entry: Decodable {
    let dtype: String
    let shape: [Int]
    let offsets: [Int]

    enum CodingKeys: String, CodingKey {
        case dtype, shape
        case offsets = "data_offsets"
    }

    var length: Int { offsets[1] - offsets[0] }

    func isBefore(_ other: Entry) -> Bool { offsets.lexicographicallyPrecedes(other.offsets) }

    /// How many bytes the shape needs; nil if it is impossible.
    func bytes(of size: Int) -> Int? {
        var product = size
        for edge in shape {
            let (next, isTooLarge) = product.multipliedReportingOverflow(by: edge)
            guard edge >= 0, !isTooLarge else { return nil }
            product = next
        }
        return product
    }
}

private struct Header: Decodable {
    private(set) var arrays: [String: Entry] = [:]
    private(set) var metadata: [String: String] = [:]

    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: AnyKey.self)
        for key in fields.allKeys {
            if key.stringValue == "__metadata__" {
                metadata = try fields.decodeIfPresent([String: String].self, forKey: key) ?? [:]
            } else {
                arrays[key.stringValue] = try fields.decode(Entry.self, forKey: key)
            }
        }
    }
}

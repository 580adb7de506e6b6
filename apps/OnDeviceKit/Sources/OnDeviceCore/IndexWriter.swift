import Foundation

extension EmbeddingIndex {
    /// Writes an index that this type and `ondevice search` read.
    ///
    /// - Parameters:
    ///   - rows: `info.dim` values each, of length 1 if `info.normalized` says so.
    ///   - paths: the path of the image behind each row.
    /// - Throws: ``OnDeviceError/file(_:)``, or ``OnDeviceError/index(_:)`` if rows and paths
    ///   do not fit.
    public static func write(
        _ rows: [[Float]], paths: [String], info: Info, to url: URL
    ) throws(OnDeviceError) {
        guard !rows.isEmpty, rows.count == paths.count, info.dim > 0,
            rows.allSatisfy({ $0.count == info.dim }), !paths.contains(where: \.isEmpty)
        else {
            throw .index(
                "An index has rows of \(info.dim) values and a path for each; given "
                    + "\(rows.count) rows and \(paths.count) paths.")
        }
        let names = paths.map { Array($0.utf8) + [0] }
        var end: UInt64 = 0
        let ends = names.map { name -> UInt64 in
            end += UInt64(name.count)
            return end
        }
        var data = header(rows: rows.count, pathBytes: Int(end), info: info)
        for end in ends { append(end, to: &data) }
        for row in rows { for value in row { append(value.bitPattern, to: &data) } }
        for name in names { data.append(contentsOf: name) }
        try FileBytes.write(data, to: url)
    }

    /// What the file begins with: the length of the JSON, and that, with spaces up to a
    /// multiple of 8 bytes so that the arrays after it are aligned.
    private static func header(rows: Int, pathBytes: Int, info: Info) -> Data {
        let embeddings = rows * 8 + rows * info.dim * 4
        let described: [String: Described] = [
            "path_ends": .array("I64", [rows], 0..<(rows * 8)),
            "embeddings": .array("F32", [rows, info.dim], (rows * 8)..<embeddings),
            "paths": .array("U8", [pathBytes], embeddings..<(embeddings + pathBytes)),
            "__metadata__": .metadata([metadataKey: json(info)]),
        ]
        var text = Array(json(described).utf8)
        while !text.count.isMultiple(of: 8) { text.append(UInt8(ascii: " ")) }
        var data = Data()
        append(UInt64(text.count), to: &data)
        return data + text
    }

    private static func append(_ value: some FixedWidthInteger, to data: inout Data) {
        withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) }
    }

    private static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else {
            preconditionFailure("Texts and whole numbers can always be JSON.")
        }
        return String(decoding: data, as: UTF8.self)
    }
}

/// What a safetensors header says of an array, or of the file.
private enum Described: Encodable {
    case array(String, [Int], Range<Int>)
    case metadata([String: String])

    enum CodingKeys: String, CodingKey {
        case dtype, shape
        case offsets = "data_offsets"
    }

    func encode(to encoder: any Encoder) throws {
        switch self {
        case .metadata(let table):
            try table.encode(to: encoder)
        case .array(let type, let shape, let bytes):
            var fields = encoder.container(keyedBy: CodingKeys.self)
            try fields.encode(type, forKey: .dtype)
            try fields.encode(shape, forKey: .shape)
            try fields.encode([bytes.lowerBound, bytes.upperBound], forKey: .offsets)
        }
    }
}

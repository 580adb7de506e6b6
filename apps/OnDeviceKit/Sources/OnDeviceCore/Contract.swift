import Foundation

/// How pixels between those of the image are found when it is resized: Pillow's filters.
public enum Interpolation: String, Codable, Sendable, CaseIterable {
    case nearest, bilinear, bicubic, lanczos, box, hamming
}

/// Which part of an image the model sees, and how it is made to fit.
public enum CropMode: String, Codable, Sendable, CaseIterable {
    /// The short edge is resized, then the centre is cut out.
    case center
    /// Both edges are resized: the image is distorted.
    case squash
    /// The long edge is resized, the rest has the colour of the mean.
    case border
    /// The image is centred on a square of ``Contract/fill``, then resized.
    case pad
}

/// The preprocessing contract: how a photo becomes a model's input.
///
/// A package carries it as JSON under the metadata key ``Contract/metadataKey``; it is
/// `ondevice.config.Preprocess` of the Python package, field for field. ``Preprocessor``
/// follows it.
public struct Contract: Sendable, Hashable {
    /// The largest ``size``: more pixels than Python opens.
    private static let maxSize = 13_377

    /// Where a package's metadata has the contract.
    public static let metadataKey = "ondevice.preprocess"

    /// The edge of the square that the model takes, in pixels.
    public var size = 224
    /// Edges are resized to `floor(size / cropPct)` before the centre is cut out.
    public var cropPct = 0.875
    /// Which part of the image is kept.
    public var cropMode = CropMode.center
    /// The filter of all resizing.
    public var interpolation = Interpolation.bicubic
    /// Subtracted from pixel values from 0 to 1, a channel each: red, green, blue.
    public var mean = SIMD3(0.485, 0.456, 0.406)
    /// What pixel values are divided by after that.
    public var std = SIMD3(0.229, 0.224, 0.225)
    /// The colour around a padded image.
    public var fill = SIMD3<UInt8>(0, 0, 0)
    /// The centre square is first resized to this many pixels, if it is given.
    public var sourceSize: Int?

    /// ImageNet's preprocessing, to change from.
    public init() {}

    /// Reads the JSON of a package's metadata.
    ///
    /// - Throws: ``OnDeviceError/contract(_:)`` that names every unknown field and every
    ///   impossible value.
    public init(json: String) throws(OnDeviceError) {
        self = try decoded(Contract.self, from: Data(json.utf8)) {
            .contract("The preprocessing contract cannot be read: \($0).")
        }
    }

    /// The contract in a package's metadata.
    ///
    /// - Throws: ``OnDeviceError/contract(_:)`` if there is none, or an impossible one.
    public init(metadata: [String: String]) throws(OnDeviceError) {
        guard let json = metadata[Self.metadataKey] else {
            throw .contract(
                "The package has no preprocessing contract; export it with ondevice, which "
                    + "writes one.")
        }
        try self.init(json: json)
    }
}

extension Contract {
    /// - Throws: ``OnDeviceError/contract(_:)`` that names all values no image can be prepared
    ///   with.
    func check() throws(OnDeviceError) { try Self.check(problems) }

    fileprivate static func check(_ problems: [String]) throws(OnDeviceError) {
        guard problems.isEmpty else {
            throw .contract(
                "The preprocessing contract cannot be followed: "
                    + problems.joined(separator: "; ") + ".")
        }
    }

    fileprivate var problems: [String] {
        let (means, deviations) = ([mean.x, mean.y, mean.z], [std.x, std.y, std.z])
        let ranges: [(name: String, given: Any, isFine: Bool, expected: String)] = [
            ("size", size, (1...Self.maxSize).contains(size), "1 to \(Self.maxSize)"),
            ("crop_pct", cropPct, (0.001...1).contains(cropPct), "0.001 to 1"),
            ("mean", means, means.allSatisfy { 0 <= $0 && $0 <= 1 }, "0 to 1"),
            (
                "std", deviations, deviations.allSatisfy { 0 < $0 && $0 <= 1 },
                "above 0, up to 1"
            ),
            ("source_size", sourceSize ?? 1, sourceSize ?? 1 > 0, "1 or more"),
        ]
        return ranges.filter { !$0.isFine }.map {
            "\($0.name) is \($0.given), expected \($0.expected)"
        }
    }
}

extension Contract: Codable {
    private enum CodingKeys: String, CodingKey, CaseIterable {
        case size, mean, std, fill, interpolation
        case cropPct = "crop_pct"
        case cropMode = "crop_mode"
        case sourceSize = "source_size"
    }

    /// Reads what Python's `Preprocess.to_dict` gives; a field that is not there keeps its
    /// default.
    ///
    /// - Throws: ``OnDeviceError/contract(_:)`` that names every unknown field and every
    ///   impossible value.
    public init(from decoder: any Decoder) throws {
        let names = try decoder.container(keyedBy: AnyKey.self).allKeys.map(\.stringValue)
        var reader = FieldReader(try decoder.container(keyedBy: CodingKeys.self))
        let known = Set(CodingKeys.allCases.map(\.rawValue))
        reader.problems = names.filter { !known.contains($0) }.sorted().map { "unknown \($0)" }
        reader.read(.size, into: &size, "a whole number")
        reader.read(.cropPct, into: &cropPct, "a number")
        reader.read(.cropMode, into: &cropMode, listed(CropMode.self))
        reader.read(.interpolation, into: &interpolation, listed(Interpolation.self))
        reader.readChannels(.mean, into: &mean, "three numbers")
        reader.readChannels(.std, into: &std, "three numbers")
        reader.readChannels(.fill, into: &fill, "three whole numbers from 0 to 255")
        reader.read(.sourceSize, into: &sourceSize, "a whole number or null")
        try Self.check(reader.problems + problems)
    }

    /// Writes all fields, as Python does.
    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(size, forKey: .size)
        try fields.encode(cropPct, forKey: .cropPct)
        try fields.encode(cropMode, forKey: .cropMode)
        try fields.encode(interpolation, forKey: .interpolation)
        try fields.encode(mean, forKey: .mean)
        try fields.encode(std, forKey: .std)
        try fields.encode(fill, forKey: .fill)
        try fields.encode(sourceSize, forKey: .sourceSize)
    }
}

/// Any name of a field.
struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int? = nil
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

/// Reads fields one after the other and remembers all that is wrong with them.
private struct FieldReader<Key: CodingKey> {
    let fields: KeyedDecodingContainer<Key>
    var problems: [String] = []

    init(_ fields: KeyedDecodingContainer<Key>) { self.fields = fields }

    mutating func read<T: Decodable>(_ key: Key, into value: inout T, _ expected: String) {
        guard fields.contains(key) else { return }
        if let found = try? fields.decode(T.self, forKey: key) {
            value = found
        } else {
            let given = (try? fields.decode(Given.self, forKey: key).text) ?? "a table"
            problems.append("\(key.stringValue) is \(given), expected \(expected)")
        }
    }

    mutating func readChannels<T: Decodable>(
        _ key: Key, into channels: inout SIMD3<T>, _ expected: String
    ) {
        var found = Channels(x: channels.x, y: channels.y, z: channels.z)
        read(key, into: &found, expected)
        channels = SIMD3(found.x, found.y, found.z)
    }
}

/// A list of exactly three.
private struct Channels<T: Decodable>: Decodable {
    let x, y, z: T

    init(x: T, y: T, z: T) { (self.x, self.y, self.z) = (x, y, z) }

    init(from decoder: any Decoder) throws {
        var list = try decoder.unkeyedContainer()
        (x, y, z) = try (list.decode(T.self), list.decode(T.self), list.decode(T.self))
        guard list.isAtEnd else {
            throw DecodingError.dataCorruptedError(in: list, debugDescription: "not three")
        }
    }
}

/// The values of an enumeration as they are written.
private func listed<T: CaseIterable & RawRepresentable<String>>(_ type: T.Type) -> String {
    type.allCases.map(\.rawValue).joined(separator: ", ")
}

/// A value of whatever type, to be shown.
private struct Given: Decodable {
    let text: String

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            text = "null"
        } else if let list = try? value.decode([Given].self) {
            text = "[\(list.map(\.text).joined(separator: ", "))]"
        } else if let flag = try? value.decode(Bool.self) {
            text = "\(flag)"
        } else if let number = try? value.decode(Double.self) {
            text = Int(exactly: number).map(String.init) ?? "\(number)"
        } else {
            text = "“\(try value.decode(String.self).prefix(40))”"
        }
    }
}

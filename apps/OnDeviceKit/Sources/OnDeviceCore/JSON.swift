import Foundation

/// JSON that is the same for the same value: sorted keys, two spaces, shortest numbers.
public enum StableJSON {
    /// `value` as text.
    ///
    /// - Throws: what the value's own `encode(to:)` throws; an infinite number, among others.
    public static func text(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}

/// `data` as a `type`; what is wrong with it, as `failure` puts it.
func decoded<T: Decodable>(
    _ type: T.Type, from data: Data, failure: (String) -> OnDeviceError
) throws(OnDeviceError) -> T {
    do {
        return try JSONDecoder().decode(type, from: data)
    } catch let error as OnDeviceError {
        throw error
    } catch let error as DecodingError {
        throw failure(sentence(about: error))
    } catch {
        throw failure("\(error.localizedDescription)")
    }
}

/// What a decoder found, as a part of a sentence.
private func sentence(about error: DecodingError) -> String {
    let context: DecodingError.Context? =
        switch error {
        case .typeMismatch(_, let found), .valueNotFound(_, let found),
            .keyNotFound(_, let found),
            .dataCorrupted(let found):
            found
        @unknown default: nil
        }
    var path = context?.codingPath.map(\.stringValue) ?? []
    if case .keyNotFound(let key, _) = error {
        path.append(key.stringValue)
        return "it has no \(path.joined(separator: "."))"
    }
    return path.isEmpty
        ? "it is no JSON" : "\(path.joined(separator: ".")) has no possible value"
}

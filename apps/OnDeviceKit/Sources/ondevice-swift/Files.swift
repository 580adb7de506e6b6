import Foundation
import OnDeviceCore

/// The bytes of a file.
func bytes(_ path: String) throws -> Data {
    guard let data = FileManager.default.contents(atPath: path) else {
        throw OnDeviceError.file("\(path) cannot be read; is it there?")
    }
    return data
}

/// What a JSON file holds; `expected` says what that should be.
func json<T: Decodable>(_ type: T.Type, _ path: String, expected: String) throws -> T {
    do {
        return try JSONDecoder().decode(type, from: bytes(path))
    } catch is DecodingError {
        throw OnDeviceError.file("\(path) is no JSON of \(expected).")
    }
}

/// The lines of a UTF-8 file.
func lines(_ path: String) throws -> [String] {
    guard let text = String(bytes: try bytes(path), encoding: .utf8) else {
        throw OnDeviceError.file("\(path) is no UTF-8 text.")
    }
    let found = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
    let kept = found.last?.isEmpty == true ? found.dropLast() : found[...]
    return kept.map { String($0) }
}

func write(_ data: some Collection<UInt8>, to url: URL) throws {
    do {
        try Data(data).write(to: url, options: .atomic)
    } catch {
        throw OnDeviceError.file("\(url.path) cannot be written.")
    }
}

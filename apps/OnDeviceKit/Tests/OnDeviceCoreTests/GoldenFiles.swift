import Foundation
import Testing

@testable import OnDeviceCore

/// What `tests/apps/goldens.py` wrote.
enum GoldenFiles {
    static func url(_ name: String) -> URL {
        Bundle.module.bundleURL.appendingPathComponent("Goldens").appendingPathComponent(name)
    }

    static func json<T: Decodable>(_ type: T.Type, _ name: String) throws -> T {
        try JSONDecoder().decode(type, from: Data(contentsOf: url(name)))
    }
}

/// Runs `body` with a folder that is gone afterwards.
func withFolder<T>(_ body: (URL) throws -> T) throws -> T {
    let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("ondevice-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}

/// The sentence of the error that `body` throws; a failure if it throws none.
func message(_ body: () throws -> Void) -> String {
    do {
        try body()
    } catch let error as OnDeviceError {
        return error.message
    } catch {
        Issue.record("another error: \(error)")
        return ""
    }
    Issue.record("no error")
    return ""
}

/// An image of noise that is the same each time.
func noise(width: Int, height: Int) throws -> RGBImage {
    var state: UInt32 = 7
    let pixels = (0..<(width * height * 3)).map { _ -> UInt8 in
        state = state &* 1_664_525 &+ 1_013_904_223
        return UInt8(state >> 24)
    }
    return try RGBImage(width: width, height: height, pixels: pixels)
}

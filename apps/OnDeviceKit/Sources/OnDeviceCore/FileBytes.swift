import Foundation

/// Files, with errors that name them and say why.
enum FileBytes {
    /// All bytes of a file. Throws ``OnDeviceError/file(_:)``.
    static func read(_ url: URL) throws(OnDeviceError) -> Data {
        guard let data = FileManager.default.contents(atPath: url.path) else {
            throw .file("\(url.path) cannot be read: \(reason(url.path, R_OK)).")
        }
        return data
    }

    /// Writes a file, or leaves what was there. Throws ``OnDeviceError/file(_:)``.
    static func write(_ data: Data, to url: URL) throws(OnDeviceError) {
        do {
            try data.write(to: url, options: .atomic)
        } catch {
            let folder = url.deletingLastPathComponent().path
            throw .file("\(url.path) cannot be written: \(reason(folder, W_OK)).")
        }
    }

    private static func reason(_ path: String, _ mode: Int32) -> String {
        let isAllowed = access(path, mode) == 0
        return isAllowed ? "it is no regular file" : String(cString: strerror(errno))
    }
}

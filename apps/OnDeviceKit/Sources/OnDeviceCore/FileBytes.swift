import Foundation

/// Files, with errors that name them.
enum FileBytes {
    /// All bytes of a file. Throws ``OnDeviceError/file(_:)``.
    static func read(_ url: URL) throws(OnDeviceError) -> Data {
        do {
            return try Data(contentsOf: url)
        } catch {
            throw .file("\(url.path) cannot be read: \(reason(error)).")
        }
    }

    /// Writes a file, or leaves what was there. Throws ``OnDeviceError/file(_:)``.
    static func write(_ data: Data, to url: URL) throws(OnDeviceError) {
        do {
            try data.write(to: url, options: .atomic)
        } catch {
            throw .file("\(url.path) cannot be written: \(reason(error)).")
        }
    }

    private static func reason(_ error: any Error) -> String {
        let code = ((error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError)?.code
        return code.map { String(cString: strerror(Int32($0))) } ?? error.localizedDescription
    }
}

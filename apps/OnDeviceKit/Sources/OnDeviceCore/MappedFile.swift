import Foundation

/// The bytes of a file, read from the disk when they are looked at.
final class MappedFile: Sendable {
    /// All bytes, never written to; valid as long as this object is.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

    init(_ url: URL) throws(Invalid) {
        let file = open(url.path, O_RDONLY)
        guard file >= 0 else { throw Invalid(String(cString: strerror(errno))) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw Invalid("it is a folder or a device")
        }
        let count = Int(status.st_size)
        guard count > 0 else { throw Invalid("it is empty") }
        guard let start = mmap(nil, count, PROT_READ, MAP_PRIVATE, file, 0), start != MAP_FAILED
        else { throw Invalid(String(cString: strerror(errno))) }
        bytes = UnsafeRawBufferPointer(start: start, count: count)
    }

    deinit {
        munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }
}

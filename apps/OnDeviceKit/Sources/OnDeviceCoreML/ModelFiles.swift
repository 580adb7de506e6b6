#if canImport(CoreML)
    import CoreML
    import Foundation
    import OnDeviceCore

    /// A package on this device, and its golden file. Nothing is ever downloaded.
    public struct ModelFiles: Sendable, Hashable, Identifiable {
        /// A name for people: that of the package without its suffix.
        public let name: String
        /// A `.mlmodelc`, or a `.mlpackage` that is compiled when it is first loaded.
        public let url: URL
        /// `NAME.golden.json`, if it lies beside the package.
        public let golden: URL?

        /// The URL.
        public var id: URL { url }

        /// The package at a URL.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/model(_:)`` if there is no package.
        public init(contentsOf url: URL) throws(OnDeviceError) {
            guard ["mlmodelc", "mlpackage"].contains(url.pathExtension) else {
                throw .model(
                    "\(url.lastPathComponent) is no Core ML package; choose a .mlpackage that "
                        + "ondevice exported.")
            }
            guard FileManager.default.fileExists(atPath: url.path) else {
                throw .model("\(url.lastPathComponent) is not on this device; import it again.")
            }
            self.url = url
            name = url.deletingPathExtension().lastPathComponent
            let beside = url.deletingLastPathComponent()
                .appendingPathComponent("\(name).golden.json")
            golden = FileManager.default.fileExists(atPath: beside.path) ? beside : nil
        }

        /// A package that Xcode compiled into the app.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/model(_:)`` if it is not there.
        public init(bundled name: String, in bundle: Bundle = .main) throws(OnDeviceError) {
            guard let url = bundle.url(forResource: name, withExtension: "mlmodelc") else {
                throw .model(
                    "The app has no model called \(name); add \(name).mlpackage to its target.")
            }
            self.url = url
            self.name = name
            golden = bundle.url(forResource: "\(name).golden", withExtension: "json")
        }

        /// All packages in a folder, by name.
        public static func all(in folder: URL) -> [ModelFiles] {
            let found = try? FileManager.default.contentsOfDirectory(
                at: folder, includingPropertiesForKeys: nil)
            return (found ?? []).compactMap { try? ModelFiles(contentsOf: $0) }
                .sorted { $0.name < $1.name }
        }

        /// What Core ML loads: the package itself if it is compiled, or what was compiled of
        /// it before, or else is now.
        func compiled() async throws -> URL {
            guard url.pathExtension == "mlpackage" else { return url }
            let cached = try cacheURL()
            if FileManager.default.fileExists(atPath: cached.path) { return cached }
            let fresh = try await MLModel.compileModel(at: url)
            try FileManager.default.createDirectory(
                at: cached.deletingLastPathComponent(), withIntermediateDirectories: true)
            try? FileManager.default.removeItem(at: cached)
            try FileManager.default.moveItem(at: fresh, to: cached)
            return cached
        }

        /// A place that changes with the package: another date, another compilation.
        private func cacheURL() throws -> URL {
            let caches = try FileManager.default.url(
                for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            let manifest = url.appendingPathComponent("Manifest.json")
            let values = try? manifest.resourceValues(forKeys: [.contentModificationDateKey])
            let date = values?.contentModificationDate ?? .distantPast
            let stamp = Int(date.timeIntervalSince1970)
            return caches.appendingPathComponent("OnDeviceModels", isDirectory: true)
                .appendingPathComponent("\(name)-\(stamp).mlmodelc", isDirectory: true)
        }
    }
#endif

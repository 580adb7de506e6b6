import Foundation
import OnDeviceCore
import OnDeviceCoreML
@preconcurrency import Photos
import UIKit

/// The vectors of the photos on this device, in the file format of `ondevice encode`. It is
/// saved as it grows, so that a build that ends early goes on where it was.
actor AlbumIndex {
    /// How many photos there are, and of how many the vector is known.
    struct Progress: Sendable, Hashable {
        var done, total: Int
    }

    private let url: URL
    private static let saveEvery = 64

    /// The index of one encoder; another encoder has another.
    init(encoder: ModelInfo) throws {
        let folder = URL.applicationSupportDirectory
            .appendingPathComponent("Albums", isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let key = encoder.metadata["ondevice.weights_sha256"]?.prefix(16) ?? "unknown"
        url = folder.appendingPathComponent("\(encoder.name)-\(key).safetensors")
    }

    /// The most similar photos, by their identifiers in the photo library.
    func search(_ vector: [Float], count: Int) throws -> [Match] {
        try EmbeddingIndex(contentsOf: url).search(vector, count: count)
    }

    /// Adds all photos that are not in it yet. Photos that are only in the cloud are left out.
    func build(
        with encoder: Model, progress: @escaping @MainActor @Sendable (Progress) -> Void
    ) async throws {
        var (paths, rows) = known()
        let seen = Set(paths)
        let fresh = try await Self.photos().filter { !seen.contains($0) }
        let total = paths.count + fresh.count
        var saved = paths.count
        for (position, id) in fresh.enumerated() {
            if Task.isCancelled { break }  // what is known by now is kept
            if let image = await Self.image(id, edge: 2 * encoder.info.contract.size),
                let vector = try? await encoder.embedding(for: try encoder.prepare(image))
            {
                paths.append(id)
                rows.append(vector)
            }
            // The whole file is written: the larger it is, the less often.
            if paths.count - saved >= max(Self.saveEvery, paths.count / 10) {
                try save(paths, rows, encoder: encoder.info)
                saved = paths.count
            }
            await progress(Progress(done: seen.count + position + 1, total: total))
        }
        if paths.count > saved { try save(paths, rows, encoder: encoder.info) }
        try Task.checkCancellation()
    }

    private func known() -> ([String], [[Float]]) {
        guard let index = try? EmbeddingIndex(contentsOf: url) else { return ([], []) }
        let rows = 0..<index.count
        return (rows.map(index.path(ofRow:)), rows.map(index.embedding(ofRow:)))
    }

    private func save(_ paths: [String], _ rows: [[Float]], encoder: ModelInfo) throws {
        guard let dim = rows.first?.count else { return }
        let info = EmbeddingIndex.Info(
            model: encoder.name, weights: encoder.metadata["ondevice.weights_sha256"] ?? "",
            normalized: true, dim: dim)
        try EmbeddingIndex.write(rows, paths: paths, info: info, to: url)
    }

    private static func photos() async throws -> [String] {
        let status = await PHPhotoLibrary.requestAuthorization(for: .readWrite)
        guard status == .authorized || status == .limited else {
            throw OnDeviceError.permission(
                "The photos are not allowed; allow them in Settings.")
        }
        let options = PHFetchOptions()
        options.sortDescriptors = [NSSortDescriptor(key: "creationDate", ascending: false)]
        let found = PHAsset.fetchAssets(with: .image, options: options)
        return (0..<found.count).map { found.object(at: $0).localIdentifier }
    }

    /// A photo, upright, as large as is needed; nothing if it is not on this device.
    private static func image(_ id: String, edge: Int) async -> RGBImage? {
        guard let photo = await thumbnail(id, edge: edge),
            let (image, orientation) = try? photo.stored()
        else { return nil }
        return image.upright(from: orientation)
    }

    /// The same for views.
    static func thumbnail(_ id: String, edge: Int) async -> UIImage? {
        let found = PHAsset.fetchAssets(withLocalIdentifiers: [id], options: nil)
        guard found.count > 0 else { return nil }
        let options = PHImageRequestOptions()
        options.deliveryMode = .highQualityFormat  // one answer, not a blurred one before
        options.isNetworkAccessAllowed = false
        options.resizeMode = .fast
        return await withCheckedContinuation { continuation in
            PHImageManager.default().requestImage(
                for: found.object(at: 0), targetSize: CGSize(width: edge, height: edge),
                contentMode: .aspectFill, options: options
            ) { image, _ in continuation.resume(returning: image) }
        }
    }
}

import Foundation
import OnDeviceCore
import OnDeviceCoreML
import SwiftUI

/// The models on this device: the one inside the app, and those that were imported.
@MainActor @Observable
final class ModelLibrary {
    /// All packages; none if even the app's own is missing.
    private(set) var models: [ModelFiles] = []
    /// What went wrong last, as a sentence.
    var problem: String?

    private var images: [ModelFiles: Model] = [:]
    private var texts: [ModelFiles: TextModel] = [:]

    static let shipped = "shvit_nano_cifar10"

    /// Where imported packages lie; the Files app shows it.
    nonisolated static var folder: URL {
        URL.documentsDirectory.appendingPathComponent("Models", isDirectory: true)
    }

    /// The tokenizer that was imported with a text encoder, if one was.
    nonisolated static var tokenizer: URL? {
        let url = folder.appendingPathComponent("tokenizer.json")
        return FileManager.default.fileExists(atPath: url.path) ? url : nil
    }

    /// Looks again which packages there are.
    func refresh() {
        let own = try? ModelFiles(bundled: Self.shipped)
        models = [own].compactMap { $0 } + ModelFiles.all(in: Self.folder)
    }

    /// An image model, loaded and warm.
    func model(_ files: ModelFiles) async throws -> Model {
        if let model = images[files] { return model }
        let model = try await Model(files)
        try await model.prewarm()
        images[files] = model
        return model
    }

    /// A text encoder, loaded.
    func textModel(_ files: ModelFiles) async throws -> TextModel {
        if let model = texts[files] { return model }
        guard let tokenizer = Self.tokenizer else {
            throw OnDeviceError.tokenizer(
                "There is no tokenizer.json; import the one beside the CLIP's weights.")
        }
        let model = try await TextModel(files, tokenizer: tokenizer)
        texts[files] = model
        return model
    }

    /// The first package that is not a text encoder, and gives a vector of an image.
    func encoder() async throws -> Model {
        for files in models {
            if let model = try? await model(files), model.info.isEncoder { return model }
        }
        throw OnDeviceError.model(
            "There is no image encoder; import a package that was exported with "
                + "--output embedding.")
    }

    /// The first text encoder.
    func textEncoder() async throws -> TextModel {
        for files in models where await TextModel.isTextModel(files) {
            return try await textModel(files)
        }
        throw OnDeviceError.model(
            "There is no text encoder; import the package of a MobileCLIP's text encoder.")
    }

    /// Copies packages, golden files and tokenizers that were chosen in the Files app.
    func add(_ chosen: Result<[URL], any Error>) {
        do {
            for url in try chosen.get() { try copy(url) }
            problem = nil
        } catch {
            problem = error.localizedDescription
        }
        refresh()
    }

    private func copy(_ url: URL) throws {
        let isPackage = url.pathExtension == "mlpackage"
        guard isPackage || url.pathExtension == "json" else {
            throw OnDeviceError.model(
                "\(url.lastPathComponent) is neither a .mlpackage nor a .json file; choose "
                    + "what ondevice export wrote.")
        }
        let isScoped = url.startAccessingSecurityScopedResource()
        defer { if isScoped { url.stopAccessingSecurityScopedResource() } }
        let files = FileManager.default
        try files.createDirectory(at: Self.folder, withIntermediateDirectories: true)
        let copied = files.temporaryDirectory.appendingPathComponent(url.lastPathComponent)
        try? files.removeItem(at: copied)
        try files.copyItem(at: url, to: copied)
        let place = Self.folder.appendingPathComponent(url.lastPathComponent)
        _ = try? files.removeItem(at: place)
        try files.moveItem(at: copied, to: place)
    }

    /// Lets go of all loaded models: memory is short.
    func forget() async {
        images.removeAll()
        for text in texts.values { await text.forget() }
        texts.removeAll()
    }
}

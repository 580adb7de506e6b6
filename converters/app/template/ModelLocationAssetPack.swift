import BackgroundAssets
import Foundation
import OnDeviceCore
import OnDeviceCoreML
import System

/// Where this app has its model: in the asset pack that the system downloads for it.
enum ModelLocation {
    static let assetPack = "__PACK__"

    static func files() async throws -> ModelFiles {
        do {
            let pack = try await AssetPackManager.shared.assetPack(withID: assetPack)
            try await AssetPackManager.shared.ensureLocalAvailability(of: pack)
            let path = FilePath("Model/\(modelName).mlpackage")
            return try ModelFiles(
                contentsOf: AssetPackManager.shared.url(for: path))
        } catch let error as OnDeviceError {
            throw error
        } catch {
            throw OnDeviceError.model(
                "The model is not downloaded yet: \(error.localizedDescription)")
        }
    }
}

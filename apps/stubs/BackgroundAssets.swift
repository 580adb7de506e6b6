// https://developer.apple.com/documentation/backgroundassets/assetpackmanager
import Foundation
import System

public struct AssetPack: Sendable { public let id: String }

public actor AssetPackManager {
    public static let shared = AssetPackManager()
    public func assetPack(withID id: String) async throws -> AssetPack { AssetPack(id: id) }
    public func ensureLocalAvailability(of assetPack: AssetPack) async throws {}
    public nonisolated func url(for path: FilePath) throws -> URL { fatalError() }
}

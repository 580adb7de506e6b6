import OnDeviceCore
import OnDeviceCoreML

/// Where this app has its model: in its bundle.
enum ModelLocation {
    static func files() async throws -> ModelFiles {
        try ModelFiles(bundled: modelName)
    }
}

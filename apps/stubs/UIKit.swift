// https://developer.apple.com/documentation/uikit/uiimage
// https://developer.apple.com/documentation/uikit/uiview
// https://developer.apple.com/documentation/uikit/uidevice
// https://developer.apple.com/documentation/uikit/uiapplication
@_exported import CoreGraphics

public final class UIImage: @unchecked Sendable {
    public enum Orientation: Int, Sendable {
        case up, down, left, right, upMirrored, downMirrored, leftMirrored, rightMirrored
    }
    public var cgImage: CGImage? { nil }
    public var imageOrientation: Orientation { .up }
}

open class CALayer {
    public init() {}
}

@MainActor open class UIView {
    public init() {}
    open class var layerClass: AnyClass { CALayer.self }
    public var layer: CALayer { CALayer() }
}

@MainActor public final class UIDevice {
    public static var current: UIDevice { UIDevice() }
    public var systemName: String { "" }
    public var systemVersion: String { "" }
}

@MainActor public final class UIApplication {
    public nonisolated static let didReceiveMemoryWarningNotification = Notification.Name("")
}

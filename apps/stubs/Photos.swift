// https://developer.apple.com/documentation/photokit/phasset
// https://developer.apple.com/documentation/photokit/phimagemanager
// https://developer.apple.com/documentation/photokit/phphotolibrary
import UIKit

public enum PHAuthorizationStatus: Int, Sendable {
    case notDetermined, restricted, denied, authorized, limited
}
public enum PHAccessLevel: Int, Sendable { case addOnly = 1, readWrite = 2 }

open class PHPhotoLibrary: NSObject {
    public class func requestAuthorization(
        for accessLevel: PHAccessLevel
    ) async -> PHAuthorizationStatus { .denied }
}

open class PHFetchOptions: NSObject {
    public var sortDescriptors: [NSSortDescriptor]?
}

open class PHFetchResult<ObjectType: AnyObject>: NSObject {
    public var count: Int { 0 }
    public func object(at index: Int) -> ObjectType { fatalError() }
}

public enum PHAssetMediaType: Int, Sendable { case unknown, image, video, audio }

open class PHAsset: NSObject {
    public var localIdentifier: String { "" }
    public class func fetchAssets(
        with mediaType: PHAssetMediaType, options: PHFetchOptions?
    ) -> PHFetchResult<PHAsset> { PHFetchResult() }
    public class func fetchAssets(
        withLocalIdentifiers identifiers: [String], options: PHFetchOptions?
    ) -> PHFetchResult<PHAsset> { PHFetchResult() }
}

public enum PHImageRequestOptionsDeliveryMode: Int, Sendable {
    case opportunistic, highQualityFormat, fastFormat
}
public enum PHImageRequestOptionsResizeMode: Int, Sendable { case none, fast, exact }
public enum PHImageContentMode: Int, Sendable { case aspectFit, aspectFill }
public typealias PHImageRequestID = Int32

open class PHImageRequestOptions: NSObject {
    public var deliveryMode = PHImageRequestOptionsDeliveryMode.opportunistic
    public var resizeMode = PHImageRequestOptionsResizeMode.fast
    public var isNetworkAccessAllowed = false
}

open class PHImageManager: NSObject {
    public class func `default`() -> PHImageManager { PHImageManager() }
    @discardableResult
    public func requestImage(
        for asset: PHAsset, targetSize: CGSize, contentMode: PHImageContentMode,
        options: PHImageRequestOptions?,
        resultHandler: @escaping (UIImage?, [AnyHashable: Any]?) -> Void
    ) -> PHImageRequestID { 0 }
}

// On Apple's systems Foundation has it.
open class NSSortDescriptor: NSObject {
    public init(key: String?, ascending: Bool) {}
}

// https://developer.apple.com/documentation/uniformtypeidentifiers/uttype-swift.struct
import Foundation

public struct UTType: Hashable, Sendable {
    public init(importedAs identifier: String) {}
    public static var package: UTType { UTType(importedAs: "") }
    public static var folder: UTType { UTType(importedAs: "") }
    public static var json: UTType { UTType(importedAs: "") }
}

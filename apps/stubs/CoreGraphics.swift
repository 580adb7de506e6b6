// https://developer.apple.com/documentation/coregraphics/cgimage
// https://developer.apple.com/documentation/coregraphics/cgcontext
// https://developer.apple.com/documentation/coregraphics/cgcolorspace
// https://developer.apple.com/documentation/coregraphics/cgdataprovider
@_exported import Foundation

// Core Foundation's types, to which Swift bridges from these.
public typealias CFAllocator = AnyObject
public typealias CFData = Data
public typealias CFDictionary = [String: Any]
public typealias CFString = String
public typealias CFURL = URL

// What Foundation has only there.
extension URL {
    public static var applicationSupportDirectory: URL { URL(fileURLWithPath: "") }
    public static var documentsDirectory: URL { URL(fileURLWithPath: "") }
    public func startAccessingSecurityScopedResource() -> Bool { true }
    public func stopAccessingSecurityScopedResource() {}
}

public final class CGImage: @unchecked Sendable {
    public init?(
        width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: CGBitmapInfo, provider: CGDataProvider,
        decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool, intent: CGColorRenderingIntent
    ) { nil }
    public var width: Int { 0 }
    public var height: Int { 0 }
    public var colorSpace: CGColorSpace? { nil }
}

public enum CGColorSpaceModel: Int32, Sendable { case unknown = -1, monochrome, rgb, cmyk }

public enum CGColorRenderingIntent: Int32, Sendable { case defaultIntent }

public struct CGBitmapInfo: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

public enum CGImageAlphaInfo: UInt32, Sendable {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst
}

public enum CGInterpolationQuality: Int32, Sendable { case `default`, none, low, high, medium }

public final class CGColorSpace: @unchecked Sendable {
    public static let sRGB: CFString = ""
    public init?(name: CFString) { nil }
    public var model: CGColorSpaceModel { .unknown }
    public var supportsOutput: Bool { false }
}

public final class CGDataProvider {
    public init?(data: CFData) { nil }
}

public final class CGContext {
    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int,
        bytesPerRow: Int, space: CGColorSpace, bitmapInfo: UInt32
    ) { nil }
    public var data: UnsafeMutableRawPointer? { nil }
    public var bytesPerRow: Int { 0 }
    public var interpolationQuality = CGInterpolationQuality.default
    public enum DrawingOptions {}
    public func draw(_ image: CGImage, in rect: CGRect, byTiling: Bool = false) {}
}

// https://developer.apple.com/documentation/imageio/cgimagesource
// https://developer.apple.com/documentation/imageio/kcgimagepropertyorientation
import CoreGraphics

public final class CGImageSource {}
public let kCGImagePropertyOrientation: CFString = "Orientation"
public func CGImageSourceCreateWithURL(_ url: CFURL, _ options: CFDictionary?) -> CGImageSource?
{
    nil
}
public func CGImageSourceCreateWithData(
    _ data: CFData, _ options: CFDictionary?
) -> CGImageSource? { nil }
public func CGImageSourceCreateImageAtIndex(
    _ source: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CGImage? { nil }
// A CFDictionary there, which has to be cast: here a dictionary already is one.
public func CGImageSourceCopyPropertiesAtIndex(
    _ source: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> AnyObject? { nil }

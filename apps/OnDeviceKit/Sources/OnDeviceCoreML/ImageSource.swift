#if canImport(CoreGraphics) && canImport(ImageIO)
    import CoreGraphics
    import CoreVideo
    import Foundation
    import ImageIO
    import OnDeviceCore

    #if canImport(UIKit)
        import UIKit
    #endif

    /// What a model can be asked about: a camera's buffer, an image in memory, a file.
    public protocol ImageSource {
        /// The pixels as they are stored, and how they have to be turned to be upright.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/image(_:)`` if there are no pixels.
        func stored() throws(OnDeviceError) -> (RGBImage, Orientation)
    }

    extension RGBImage: ImageSource {
        /// Itself.
        public func stored() throws(OnDeviceError) -> (RGBImage, Orientation) { (self, .up) }
    }

    extension CVPixelBuffer: ImageSource {
        /// The pixels of a buffer in the format 32BGRA, taken to be upright.
        public func stored() throws(OnDeviceError) -> (RGBImage, Orientation) {
            (try RGBImage(self), .up)
        }
    }

    extension CGImage: ImageSource {
        /// Its pixels, taken to be upright.
        public func stored() throws(OnDeviceError) -> (RGBImage, Orientation) {
            (try RGBImage(self), .up)
        }
    }

    extension URL: ImageSource {
        /// What is in the file, with the orientation that it says.
        public func stored() throws(OnDeviceError) -> (RGBImage, Orientation) {
            guard let source = CGImageSourceCreateWithURL(self as CFURL, nil) else {
                throw .image("\(lastPathComponent) cannot be opened as an image.")
            }
            return try RGBImage.stored(in: source, called: lastPathComponent)
        }
    }

    extension Data: ImageSource {
        /// What is in the file, with the orientation that it says.
        public func stored() throws(OnDeviceError) -> (RGBImage, Orientation) {
            guard let source = CGImageSourceCreateWithData(self as CFData, nil) else {
                throw .image("The photo cannot be opened as an image.")
            }
            return try RGBImage.stored(in: source, called: "The photo")
        }
    }

    #if canImport(UIKit)
        extension UIImage: ImageSource {
            /// Its pixels, with its orientation, whose type has another order.
            public func stored() throws(OnDeviceError) -> (RGBImage, OnDeviceCore.Orientation) {
                guard let image = cgImage else {
                    throw .image("The image has no pixels; draw it into a bitmap first.")
                }
                let turned: [UIImage.Orientation: OnDeviceCore.Orientation] = [
                    .up: .up, .upMirrored: .upMirrored, .down: .down,
                    .downMirrored: .downMirrored, .leftMirrored: .leftMirrored,
                    .right: .right, .rightMirrored: .rightMirrored, .left: .left,
                ]
                return (try RGBImage(image), turned[imageOrientation] ?? .up)
            }
        }
    #endif

    extension RGBImage {
        /// The pixels of an image as they are stored: no profile is applied, as in training, so
        /// that the Display P3 values of an iPhone's photo stay. What is no RGB is converted to
        /// sRGB; what is transparent is drawn on black.
        public init(_ image: CGImage) throws(OnDeviceError) {
            let (width, height) = (image.width, image.height)
            let info = CGImageAlphaInfo.noneSkipLast.rawValue
            guard width > 0, height > 0,
                let space = Self.space(of: image),
                let context = CGContext(
                    data: nil, width: width, height: height, bitsPerComponent: 8,
                    bytesPerRow: 0, space: space, bitmapInfo: info)
            else {
                throw .image("An image of \(width) x \(height) pixels cannot be drawn.")
            }
            // No resampling: the image is drawn in its own size, pixel on pixel.
            context.interpolationQuality = .none
            context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
            guard let base = context.data else {
                throw .image("There is no memory for \(width) x \(height) pixels.")
            }
            let pixels = Self.rgb(
                base, width: width, height: height, bytesPerRow: context.bytesPerRow,
                order: (0, 1, 2))
            try self.init(width: width, height: height, pixels: pixels)
        }

        /// The image's own colours, if an image can be drawn in them.
        private static func space(of image: CGImage) -> CGColorSpace? {
            if let own = image.colorSpace, own.model == .rgb, own.supportsOutput { return own }
            return CGColorSpace(name: CGColorSpace.sRGB)
        }

        static func stored(
            in source: CGImageSource, called name: String
        ) throws(OnDeviceError) -> (RGBImage, Orientation) {
            guard let image = CGImageSourceCreateImageAtIndex(source, 0, nil) else {
                throw .image("\(name) is no image, or a damaged one.")
            }
            let properties =
                CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [String: Any] ?? [:]
            let tag = properties[kCGImagePropertyOrientation as String] as? Int ?? 1
            return (try RGBImage(image), Orientation(rawValue: tag) ?? .up)
        }

        /// The image for views.
        public var cgImage: CGImage? {
            let info = CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue)
            guard let provider = CGDataProvider(data: Data(pixels) as CFData),
                let space = CGColorSpace(name: CGColorSpace.sRGB)
            else { return nil }
            return CGImage(
                width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24,
                bytesPerRow: width * 3, space: space, bitmapInfo: info, provider: provider,
                decode: nil, shouldInterpolate: false, intent: .defaultIntent)
        }
    }
#endif

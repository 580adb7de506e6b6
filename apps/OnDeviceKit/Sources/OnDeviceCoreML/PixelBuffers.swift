#if canImport(CoreVideo)
    import CoreVideo
    import OnDeviceCore

    /// Square BGRA buffers that are used again and again.
    struct PixelBufferPool {
        private let pool: CVPixelBufferPool?
        private let size: Int

        init(size: Int) {
            self.size = size
            let attributes: [String: Any] = [
                kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA,
                kCVPixelBufferWidthKey as String: size,
                kCVPixelBufferHeightKey as String: size,
                kCVPixelBufferIOSurfacePropertiesKey as String: [String: String](),
            ]
            var made: CVPixelBufferPool?
            CVPixelBufferPoolCreate(nil, nil, attributes as CFDictionary, &made)
            pool = made
        }

        /// A buffer with these pixels, of the pool's size.
        func buffer(of image: RGBImage) throws(OnDeviceError) -> CVPixelBuffer {
            var made: CVPixelBuffer?
            if let pool { CVPixelBufferPoolCreatePixelBuffer(nil, pool, &made) }
            guard let buffer = made else {
                throw .model("There is no memory for an image of \(size) x \(size) pixels.")
            }
            CVPixelBufferLockBaseAddress(buffer, [])
            defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
            guard let base = CVPixelBufferGetBaseAddress(buffer) else {
                throw .model("There is no memory for an image of \(size) x \(size) pixels.")
            }
            let stride = CVPixelBufferGetBytesPerRow(buffer)
            for y in 0..<size {
                let row = base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self)
                for x in 0..<size {
                    let from = (y * size + x) * 3
                    row[4 * x] = image.pixels[from + 2]
                    row[4 * x + 1] = image.pixels[from + 1]
                    row[4 * x + 2] = image.pixels[from]
                    row[4 * x + 3] = 255
                }
            }
            return buffer
        }
    }

    extension RGBImage {
        /// The pixels of a buffer in the format `kCVPixelFormatType_32BGRA`, as a camera gives
        /// if it is asked to.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/image(_:)`` for another format.
        public init(_ buffer: CVPixelBuffer) throws(OnDeviceError) {
            guard CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA else {
                throw .image("The image's pixels are not BGRA; ask the camera for 32BGRA.")
            }
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            let width = CVPixelBufferGetWidth(buffer)
            let height = CVPixelBufferGetHeight(buffer)
            guard let base = CVPixelBufferGetBaseAddress(buffer) else {
                throw .image("The image has no pixels in memory.")
            }
            let pixels = Self.rgb(
                base, width: width, height: height,
                bytesPerRow: CVPixelBufferGetBytesPerRow(buffer), order: (2, 1, 0))
            try self.init(width: width, height: height, pixels: pixels)
        }

        /// Three of each four bytes, in the order given.
        static func rgb(
            _ base: UnsafeMutableRawPointer, width: Int, height: Int, bytesPerRow: Int,
            order: (Int, Int, Int)
        ) -> [UInt8] {
            [UInt8](unsafeUninitializedCapacity: width * height * 3) { found, count in
                var next = 0
                for y in 0..<height {
                    let row = base.advanced(by: y * bytesPerRow)
                        .assumingMemoryBound(to: UInt8.self)
                    for x in 0..<width {
                        found[next] = row[4 * x + order.0]
                        found[next + 1] = row[4 * x + order.1]
                        found[next + 2] = row[4 * x + order.2]
                        next += 3
                    }
                }
                count = next
            }
        }
    }

    extension Tensor {
        /// The values of an output that is an image: (1, channels, height, width), red, green
        /// and blue if it has colours.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/model(_:)`` for a format that no package of
        ///   ondevice gives.
        init(_ buffer: CVPixelBuffer) throws(OnDeviceError) {
            let layouts: [OSType: PixelLayout] = [
                kCVPixelFormatType_OneComponent8: .grey8,
                kCVPixelFormatType_OneComponent16Half: .greyFloat16,
                kCVPixelFormatType_32BGRA: .bgra8,
            ]
            guard let layout = layouts[CVPixelBufferGetPixelFormatType(buffer)] else {
                throw .model("The model gives an image in a format that is not known here.")
            }
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            let (stride, height) = (
                CVPixelBufferGetBytesPerRow(buffer), CVPixelBufferGetHeight(buffer)
            )
            let bytes = UnsafeRawBufferPointer(
                start: CVPixelBufferGetBaseAddress(buffer), count: stride * height)
            self = try layout.tensor(
                bytes, width: CVPixelBufferGetWidth(buffer), height: height, bytesPerRow: stride
            )
        }
    }
#endif

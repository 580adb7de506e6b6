// https://developer.apple.com/documentation/vision/vncoremlrequest
// https://developer.apple.com/documentation/vision/vnimagecropandscaleoption
@_exported import CoreML

public enum VNImageCropAndScaleOption: UInt, Sendable { case centerCrop, scaleFit, scaleFill }

open class VNCoreMLModel: NSObject {
    public convenience init(for model: MLModel) throws { self.init() }
}

open class VNCoreMLRequest: NSObject {
    public init(model: VNCoreMLModel) {}
    public var imageCropAndScaleOption = VNImageCropAndScaleOption.centerCrop
}

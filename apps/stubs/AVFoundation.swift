// https://developer.apple.com/documentation/avfoundation/avcapturesession
// https://developer.apple.com/documentation/avfoundation/avcapturedevice
// https://developer.apple.com/documentation/avfoundation/avcapturevideodataoutput
// https://developer.apple.com/documentation/avfoundation/avcapturevideopreviewlayer
@_exported import CoreVideo
import UIKit

public struct AVMediaType: Hashable, Sendable {
    public static let video = AVMediaType()
}

public enum AVLayerVideoGravity: Sendable { case resizeAspectFill }

public final class CMSampleBuffer {}
public func CMSampleBufferGetImageBuffer(_ sbuf: CMSampleBuffer) -> CVImageBuffer? { nil }

open class AVCaptureDevice: NSObject {
    public enum Position: Int, Sendable { case unspecified, back, front }
    public struct DeviceType: Hashable, Sendable {
        public static let builtInWideAngleCamera = DeviceType()
    }
    public class func requestAccess(for mediaType: AVMediaType) async -> Bool { false }
    public class func `default`(
        _ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position
    ) -> AVCaptureDevice? { nil }
}

open class AVCaptureInput: NSObject {}
open class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws {}
}

open class AVCaptureConnection: NSObject {
    public var videoRotationAngle: CGFloat = 0
}

open class AVCaptureOutput: NSObject {
    public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { nil }
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
        from connection: AVCaptureConnection)
}

open class AVCaptureVideoDataOutput: AVCaptureOutput {
    public var alwaysDiscardsLateVideoFrames = true
    public var videoSettings: [String: Any]! = [:]
    public func setSampleBufferDelegate(
        _ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?,
        queue: DispatchQueue?
    ) {}
}

open class AVCaptureSession: NSObject {
    public struct Preset: Hashable, Sendable { public static let vga640x480 = Preset() }
    public var inputs: [AVCaptureInput] { [] }
    public var sessionPreset = Preset.vga640x480
    public func beginConfiguration() {}
    public func commitConfiguration() {}
    public func canAddInput(_ input: AVCaptureInput) -> Bool { false }
    public func addInput(_ input: AVCaptureInput) {}
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { false }
    public func addOutput(_ output: AVCaptureOutput) {}
    public func startRunning() {}
    public func stopRunning() {}
}

open class AVCaptureVideoPreviewLayer: CALayer {
    public var session: AVCaptureSession?
    public var videoGravity = AVLayerVideoGravity.resizeAspectFill
}

@preconcurrency import AVFoundation
import CoreVideo
import OnDeviceCore
import OnDeviceCoreML

/// One picture of the camera. Nobody writes to it once it is here.
struct Frame: @unchecked Sendable {
    let buffer: CVPixelBuffer
}

/// The back camera: a session for the preview layer, and its frames, of which only the newest
/// waits.
///
/// What changes is touched on `queue` alone, which the delegate is called on as well.
final class Camera: NSObject, @unchecked Sendable {
    let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "camera", qos: .userInitiated)
    private var newest: AsyncStream<Frame>.Continuation?

    /// Asks for the camera if that was not done before, and starts it: its frames from now on.
    ///
    /// - Throws: `OnDeviceError.permission` if it is denied, `.image` if there is none.
    func start() async throws -> AsyncStream<Frame> {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw OnDeviceError.permission(
                "The camera is not allowed; allow it in Settings, or choose a photo.")
        }
        let (frames, newest) = AsyncStream.makeStream(
            of: Frame.self, bufferingPolicy: .bufferingNewest(1))
        try await withCheckedThrowingContinuation {
            (done: CheckedContinuation<Void, any Error>) in
            queue.async {
                do {
                    if self.session.inputs.isEmpty { try self.configure() }
                    self.newest?.finish()
                    self.newest = newest
                    self.session.startRunning()
                    done.resume()
                } catch {
                    done.resume(throwing: error)
                }
            }
        }
        return frames
    }

    /// Stops it: nothing is seen and nothing is computed any more.
    func stop() {
        queue.async {
            self.session.stopRunning()
            self.newest?.finish()
            self.newest = nil
        }
    }

    private func configure() throws {
        let device = AVCaptureDevice.default(
            .builtInWideAngleCamera, for: .video, position: .back)
        guard let device, let input = try? AVCaptureDeviceInput(device: device) else {
            throw OnDeviceError.image("This device has no camera; choose a photo.")
        }
        let output = AVCaptureVideoDataOutput()
        output.alwaysDiscardsLateVideoFrames = true
        output.videoSettings = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
        ]
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .vga640x480
        guard session.canAddInput(input), session.canAddOutput(output) else {
            throw OnDeviceError.image("The camera is in use; close what uses it.")
        }
        session.addInput(input)
        session.addOutput(output)
        output.connection(with: .video)?.videoRotationAngle = 90  // the app is upright
    }
}

extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
        from connection: AVCaptureConnection
    ) {
        guard let buffer = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        newest?.yield(Frame(buffer: buffer))
    }
}

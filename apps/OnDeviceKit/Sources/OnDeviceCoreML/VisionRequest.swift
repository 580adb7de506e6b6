#if canImport(Vision)
    import CoreML
    import Foundation
    import OnDeviceCore
    import Vision

    /// Vision's own request, where its crop is the contract's.
    ///
    /// Vision resizes with a filter of its own, so that values differ a little even then;
    /// ``Model`` follows the contract to the pixel.
    public enum VisionCrop {
        /// How Vision has to fit an image, or why it cannot.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/contract(_:)`` with the reason.
        public static func option(
            for contract: Contract
        ) throws(OnDeviceError) -> VNImageCropAndScaleOption {
            if let source = contract.sourceSize {
                throw .contract(
                    "Vision cannot shrink an image to \(source) pixels before it enlarges it; "
                        + "use Model.")
            }
            let resized = Int((Double(contract.size) / contract.cropPct).rounded(.down))
            guard resized == contract.size else {
                throw .contract(
                    "Vision keeps the whole square; the model was trained on the middle "
                        + "\(contract.size) of \(resized) pixels; use Model.")
            }
            switch contract.cropMode {
            case .center: return .centerCrop
            case .squash: return .scaleFill
            case .border, .pad:
                throw .contract(
                    "Vision does not say in what colour it pads an image; the model was "
                        + "trained with one; use Model.")
            }
        }

        /// A request of a compiled package that crops as the contract says.
        ///
        /// - Throws: ``OnDeviceCore/OnDeviceError/contract(_:)`` with the reason if it cannot.
        public static func request(
            for model: MLModel, contract: Contract
        ) throws -> VNCoreMLRequest {
            let crop = try option(for: contract)
            let request = VNCoreMLRequest(model: try VNCoreMLModel(for: model))
            request.imageCropAndScaleOption = crop
            return request
        }
    }
#endif

// https://developer.apple.com/documentation/coreml/mlmodel
// https://developer.apple.com/documentation/coreml/mlmodeldescription
// https://developer.apple.com/documentation/coreml/mlfeaturevalue
// https://developer.apple.com/documentation/coreml/mlshapedarray
// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n
// https://developer.apple.com/documentation/foundation/processinfo/thermalstate-swift.enum
@_exported import CoreVideo

public enum MLComputeUnits: Int, Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

open class MLModelConfiguration: NSObject {
    public var computeUnits = MLComputeUnits.all
}

open class MLPredictionOptions: NSObject {}

public protocol MLFeatureProvider: AnyObject {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public var featureNames: Set<String> { [] }
    public func featureValue(for featureName: String) -> MLFeatureValue? { nil }
}

open class MLMultiArray: NSObject {}

open class MLFeatureValue: NSObject {
    public convenience init(pixelBuffer value: CVPixelBuffer) { self.init() }
    public convenience init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) {
        self.init()
    }
    public var multiArrayValue: MLMultiArray? { nil }
    public var imageBufferValue: CVPixelBuffer? { nil }
    public var dictionaryValue: [AnyHashable: NSNumber] { [:] }
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar>: @unchecked Sendable {
    public init(converting multiArray: MLMultiArray) { fatalError() }
    public init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar {
        fatalError()
    }
    public var shape: [Int] { [] }
    public var scalars: [Scalar] { [] }
}

public enum MLFeatureType: Int, Sendable {
    case invalid, int64, double, string, image, multiArray, dictionary, sequence
}

open class MLImageConstraint: NSObject {
    public var pixelsHigh: Int { 0 }
    public var pixelsWide: Int { 0 }
}

open class MLFeatureDescription: NSObject {
    public var name: String { "" }
    public var type: MLFeatureType { .invalid }
    public var imageConstraint: MLImageConstraint? { nil }
    public var isOptional: Bool { false }
}

public struct MLModelMetadataKey: RawRepresentable, Hashable, Sendable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }
    public static let license = MLModelMetadataKey(rawValue: "license")
    public static let creatorDefinedKey = MLModelMetadataKey(rawValue: "creator")
}

open class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { [:] }
    public var outputDescriptionsByName: [String: MLFeatureDescription] { [:] }
    public var predictedProbabilitiesName: String? { nil }
    public var classLabels: [Any]? { nil }
    public var metadata: [MLModelMetadataKey: Any] { [:] }
}

open class MLModel: NSObject {
    public var modelDescription: MLModelDescription { MLModelDescription() }
    public class func load(
        contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
    ) async throws -> MLModel { fatalError() }
    public class func compileModel(at url: URL) async throws -> URL { url }
    public func prediction(
        from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
    ) async throws -> any MLFeatureProvider { input }
}

public final class MLCPUComputeDevice: NSObject {}
public final class MLGPUComputeDevice: NSObject {}
public final class MLNeuralEngineComputeDevice: NSObject {}

public enum MLComputeDevice: @unchecked Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

public enum MLModelStructure: Sendable {
    public struct Program: Sendable {
        public struct NamedValueType: Sendable { public let name: String }
        public struct Operation: Sendable {
            public let operatorName: String
            public let outputs: [NamedValueType]
        }
        public struct Block: Sendable { public let operations: [Operation] }
        public struct Function: Sendable { public let block: Block }
        public let functions: [String: Function]
    }
    case program(Program)
    case unsupported
}

public final class MLComputePlan: @unchecked Sendable {
    public struct DeviceUsage: Sendable { public let preferred: MLComputeDevice }
    public let modelStructure = MLModelStructure.unsupported
    public static func load(
        contentsOf url: URL, configuration: MLModelConfiguration
    ) async throws -> MLComputePlan { MLComputePlan() }
    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        nil
    }
}

extension ProcessInfo {
    public enum ThermalState: Int, Sendable { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { .nominal }
    public var isLowPowerModeEnabled: Bool { false }
}

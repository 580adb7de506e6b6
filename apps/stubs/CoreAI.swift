// https://developer.apple.com/documentation/coreai/aimodel
// https://developer.apple.com/documentation/coreai/aimodelasset
// https://developer.apple.com/documentation/coreai/aimodelasset/metadata-swift.struct
// https://developer.apple.com/documentation/coreai/inferencefunction
// https://developer.apple.com/documentation/coreai/inferencefunctiondescriptor
// https://developer.apple.com/documentation/coreai/inferencevalue
// https://developer.apple.com/documentation/coreai/ndarray
import Foundation

public struct AIModel: Sendable {
    public init(
        contentsOf url: URL, options: SpecializationOptions = .default
    ) async throws {}
    public var functionNames: [String] { [] }
    public func loadFunction(named name: String) throws -> InferenceFunction? { nil }
}

public struct SpecializationOptions: Hashable, Sendable {
    public static let `default` = SpecializationOptions()
}

public struct AIModelAsset {
    public init(contentsOf url: URL) throws {}
    public var metadata: Metadata { Metadata() }
    public struct Metadata: Sendable {
        public enum CreatorDefinedValue: Hashable, Sendable { case string(String) }
        public var creatorDefinedMetadata: [String: CreatorDefinedValue] { [:] }
        public subscript(_ key: String, _ type: String.Type) -> String? { nil }
    }
}

public struct InferenceFunction: Sendable {
    public struct MutableViews: ~Copyable { public init() {} }
    public struct Outputs: ~Copyable {
        public mutating func remove(_ name: String) -> InferenceValue? { nil }
    }
    public let descriptor: InferenceFunctionDescriptor
    public func run(
        inputs: [String: NDArray], states: consuming MutableViews = MutableViews(),
        outputViews: consuming MutableViews = MutableViews()
    ) async throws -> Outputs { Outputs() }
}

public struct InferenceFunctionDescriptor: Sendable {
    public var inputCount: Int { 0 }
    public var inputNames: [String] { [] }
    public var outputNames: [String] { [] }
    public func inputDescriptor(of name: String) -> InferenceValue.Descriptor? { nil }
}

public struct NDArrayDescriptor: Sendable {
    public var scalarType: NDArray.ScalarType { .float32 }
}

public struct ImageDescriptor: Sendable {}

public struct InferenceValue: ~Copyable {
    public enum Descriptor: Sendable {
        case ndArray(NDArrayDescriptor)
        case image(ImageDescriptor)
    }
    public var ndArray: NDArray? { nil }
}

public struct NDArray: Sendable {
    public enum ScalarType: Sendable { case float32, float16, int32, uint8 }
    public struct View<Element: BitwiseCopyable> {
        public func withUnsafePointer<R, E>(
            _ body: (UnsafePointer<Element>, Span<Int>, Span<Int>) throws(E) -> R
        ) throws(E) -> R { fatalError() }
    }
    public init<Scalar: BitwiseCopyable>(scalars: some Sequence<Scalar>, shape: [Int]) {}
    public var shape: [Int] { [] }
    public var strides: [Int] { [] }
    public var scalarType: ScalarType { .float32 }
    public func view<T: BitwiseCopyable>(as type: T.Type) -> View<T> { View() }
}

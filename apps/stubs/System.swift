// https://developer.apple.com/documentation/system/filepath
public struct FilePath: Hashable, Sendable {
    public init(_ string: String) {}
}

import Foundation

/// CLIP's byte-pair tokens, from a `tokenizer.json`: the same as Python's `ondevice` gives.
///
/// Entities such as `&amp;` and typographic quotes are resolved first, as open_clip does it.
public struct CLIPTokenizer: Sendable {
    /// How many tokens a text has, with its start, its end and the zeros after it.
    public let context: Int
    /// The token before a text.
    public let start: Int32
    /// The token after a text.
    public let end: Int32

    /// Reads a `tokenizer.json`.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, ``OnDeviceError/tokenizer(_:)``.
    public init(contentsOf url: URL, context: Int = 77) throws(OnDeviceError) { fatalError() }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// - Throws: ``OnDeviceError/tokenizer(_:)``.
    public init(json: Data, context: Int = 77) throws(OnDeviceError) { fatalError() }

    /// `context` token ids: the start, the text, the end, zeros. A longer text is cut.
    public func tokens(of text: String) -> [Int32] { fatalError() }
}

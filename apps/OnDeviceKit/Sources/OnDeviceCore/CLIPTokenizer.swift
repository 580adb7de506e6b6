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

    private let pairs: BytePairs
    private let special: [SpecialToken]
    private let splitsSpecial: Bool

    /// Far more than the tokens of any context; the rest of a longer text is not looked at.
    private static let maxScalars = 20_000

    /// Reads a `tokenizer.json`.
    ///
    /// - Throws: ``OnDeviceError/file(_:)``, ``OnDeviceError/tokenizer(_:)``.
    public init(contentsOf url: URL, context: Int = 77) throws(OnDeviceError) {
        try self.init(json: FileBytes.read(url), context: context)
    }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// - Throws: ``OnDeviceError/tokenizer(_:)``.
    public init(json: Data, context: Int = 77) throws(OnDeviceError) {
        let file = try decoded(TokenizerFile.self, from: json) {
            .tokenizer("The tokenizer cannot be read: \($0).")
        }
        try file.check()
        pairs = try BytePairs(vocabulary: file.model.vocab, merges: file.model.merges)
        special = file.specialTokens
        splitsSpecial = file.splitsSpecial
        guard let start = special.first(where: { $0.text == TokenizerFile.start })?.id,
            let end = special.first(where: { $0.text == TokenizerFile.end })?.id,
            start >= 0, Int(end) == file.size - 1
        else {
            throw .tokenizer(
                "The tokenizer is not CLIP's: of its \(file.size) tokens, "
                    + "\(TokenizerFile.end) has to be the last, and \(TokenizerFile.start) one."
            )
        }
        (self.start, self.end, self.context) = (start, end, context)
    }

    /// `context` token ids: the start, the text, the end, zeros. A longer text is cut.
    public func tokens(of text: String) -> [Int32] {
        var scalars = Array(text.unicodeScalars.prefix(Self.maxScalars)).map(plainQuote)
        for _ in 0..<2 where scalars.contains("&") { scalars = HTMLText.resolved(scalars) }
        var ids = [start]
        ids.reserveCapacity(context)
        append(scalars[...], to: &ids, isNormalized: false)
        ids.removeLast(max(0, ids.count - (context - 1)))
        ids.append(end)
        return ids + repeatElement(0, count: context - ids.count)
    }

    /// The tokens of a text in which special tokens may stand: those that are looked for in the
    /// text as it is, then, between them, those that are looked for once it is normalized.
    private func append(
        _ text: ArraySlice<Unicode.Scalar>, to ids: inout [Int32], isNormalized: Bool
    ) {
        var rest = text
        while let (token, range) = firstSpecial(in: rest, isNormalized: isNormalized) {
            appendPlain(rest[..<range.lowerBound], to: &ids, isNormalized: isNormalized)
            ids.append(token.id)
            rest = rest[range.upperBound...]
        }
        appendPlain(rest, to: &ids, isNormalized: isNormalized)
    }

    private func appendPlain(
        _ text: ArraySlice<Unicode.Scalar>, to ids: inout [Int32], isNormalized: Bool
    ) {
        guard !isNormalized else {
            return TextPieces.each(in: text, splitsSpecial: splitsSpecial) { word in
                pairs.append(word.flatMap { Array(UTF8.encode($0) ?? .init()) }, to: &ids)
            }
        }
        append(normalized(text), to: &ids, isNormalized: true)
    }

    private func firstSpecial(
        in text: ArraySlice<Unicode.Scalar>, isNormalized: Bool
    ) -> (SpecialToken, Range<Int>)? {
        for position in text.indices where text[position] == "<" {
            for token in special where token.isNormalized == isNormalized {
                if text[position...].starts(with: token.scalars) {
                    return (token, position..<(position + token.scalars.count))
                }
            }
        }
        return nil
    }

    /// Composed as NFC, in lower case: one scalar after the other, whatever is around it.
    private func normalized(_ text: ArraySlice<Unicode.Scalar>) -> ArraySlice<Unicode.Scalar> {
        var composed = text
        if text.contains(where: { $0.value >= 0x300 }) {  // all below are composed
            var string = String.UnicodeScalarView()
            string.append(contentsOf: text)
            composed =
                Array(
                    String(string).precomposedStringWithCanonicalMapping.unicodeScalars)[...]
        }
        var found: [Unicode.Scalar] = []
        found.reserveCapacity(composed.count)
        for scalar in composed {
            if scalar.isASCII {
                let isUpper = ("A"..."Z").contains(scalar)
                found.append(isUpper ? Unicode.Scalar(UInt8(scalar.value) + 32) : scalar)
            } else {
                found.append(contentsOf: scalar.properties.lowercaseMapping.unicodeScalars)
            }
        }
        return found[...]
    }
}

/// Typographic quotes as those of a typewriter.
private func plainQuote(_ scalar: Unicode.Scalar) -> Unicode.Scalar {
    switch scalar {
    case "\u{2018}", "\u{2019}": "'"
    case "\u{201C}", "\u{201D}": "\""
    default: scalar
    }
}

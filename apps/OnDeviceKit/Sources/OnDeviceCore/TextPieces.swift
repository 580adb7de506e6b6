/// The words of a text as CLIP's pattern has them: a contraction's end such as `'s`, letters, a
/// single number, or what is none of these, without the white space between.
enum TextPieces {
    private static let contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map {
        Array($0.unicodeScalars)
    }
    private static let special = [TokenizerFile.start, TokenizerFile.end].map {
        Array($0.unicodeScalars)
    }

    /// Calls `body` with each word.
    ///
    /// - Parameter splitsSpecial: whether the pattern begins with the special tokens; their
    ///   words are then `<|`, the letters and `|>`, whatever comes after.
    static func each(
        in text: ArraySlice<Unicode.Scalar>, splitsSpecial: Bool,
        _ body: (ArraySlice<Unicode.Scalar>) -> Void
    ) {
        var rest = text
        while let first = rest.first {
            if splitsSpecial, first == "<", let token = special.first(where: rest.starts) {
                let inner = rest.dropFirst(2).prefix(token.count - 4)
                for word in [rest.prefix(2), inner, rest[inner.endIndex...].prefix(2)] {
                    body(word)
                }
                rest = rest.dropFirst(token.count)
                continue
            }
            let piece = rest.prefix(length(of: rest, first: first))
            if Kind(first) != .space { body(piece) }
            rest = rest.dropFirst(piece.count)
        }
    }

    /// How many scalars belong to the first one.
    private static func length(
        of text: ArraySlice<Unicode.Scalar>, first: Unicode.Scalar
    ) -> Int {
        if first == "'", let found = contractions.first(where: text.starts) {
            return found.count
        }
        let kind = Kind(first)
        return kind == .number ? 1 : text.prefix { Kind($0) == kind }.count
    }
}

/// What the pattern tells apart.
private enum Kind {
    case space, letter, number, other

    init(_ scalar: Unicode.Scalar) {
        self = scalar.isASCII ? Self.ascii[Int(scalar.value)] : Self(properties: scalar)
    }

    private static let ascii = (0..<128).map { Kind(properties: Unicode.Scalar(UInt8($0))) }

    private init(properties scalar: Unicode.Scalar) {
        let properties = scalar.properties
        switch properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter,
            .otherLetter:
            self = .letter
        case .decimalNumber, .letterNumber, .otherNumber: self = .number
        default: self = properties.isWhitespace ? .space : .other
        }
    }
}

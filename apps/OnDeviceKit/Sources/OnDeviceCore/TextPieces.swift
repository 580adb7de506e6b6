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
            let length: Int
            if splitsSpecial, first == "<", let found = special.first(where: rest.starts) {
                let inner = rest.dropFirst(2).prefix(found.count - 4)
                for word in [rest.prefix(2), inner, rest.dropFirst(found.count - 2).prefix(2)] {
                    body(word)
                }
                rest = rest.dropFirst(found.count)
                continue
            }
            if first == "'", let found = contractions.first(where: rest.starts) {
                length = found.count
            } else {
                let kind = Kind(first)
                length = kind == .number ? 1 : rest.prefix { Kind($0) == kind }.count
                if kind == .space {
                    rest = rest.dropFirst(length)
                    continue
                }
            }
            body(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
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

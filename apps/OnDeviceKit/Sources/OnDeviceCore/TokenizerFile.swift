/// What a `tokenizer.json` says, as far as CLIP's tokenizer needs it.
struct TokenizerFile: Decodable {
    static let start = "<|startoftext|>"
    static let end = "<|endoftext|>"

    let model: Model
    let added: [Added]
    let normalizer: Step
    let preTokenizer: Step

    enum CodingKeys: String, CodingKey {
        case model, normalizer
        case added = "added_tokens"
        case preTokenizer = "pre_tokenizer"
    }

    struct Model: Decodable {
        let type: String?
        let vocab: [String: Int32]
        let merges: [Merge]
        let suffix: String?
        let prefix: String?

        enum CodingKeys: String, CodingKey {
            case type, vocab, merges
            case suffix = "end_of_word_suffix"
            case prefix = "continuing_subword_prefix"
        }
    }

    /// Two tokens that become one: a text with a space between them, or a list.
    struct Merge: Decodable {
        let left, right: String

        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            let parts =
                try (try? value.decode([String].self))
                ?? value.decode(String.self).split(separator: " ").map(String.init)
            guard parts.count == 2 else {
                throw DecodingError.dataCorruptedError(in: value, debugDescription: "no pair")
            }
            (left, right) = (parts[0], parts[1])
        }
    }

    struct Added: Decodable {
        let id: Int32
        let content: String
        let singleWord, lstrip, rstrip, normalized: Bool?

        enum CodingKeys: String, CodingKey {
            case id, content, lstrip, rstrip, normalized
            case singleWord = "single_word"
        }
    }

    /// A step of the normalizer or the pre-tokenizer; a sequence has more inside.
    struct Step: Decodable {
        let type: String
        let normalizers: [Step]?
        let pretokenizers: [Step]?
        let pattern: Pattern?
        let content: String?
        let behavior: String?
        let invert: Bool?
        let addPrefixSpace: Bool?
        let useRegex: Bool?

        enum CodingKeys: String, CodingKey {
            case type, normalizers, pretokenizers, pattern, content, behavior, invert
            case addPrefixSpace = "add_prefix_space"
            case useRegex = "use_regex"
        }

        struct Pattern: Decodable {
            let regex: String?

            enum CodingKeys: String, CodingKey {
                case regex = "Regex"
            }
        }
    }
}

/// A token that stands for itself in a text.
struct SpecialToken: Sendable {
    let id: Int32
    let text: String
    let scalars: [Unicode.Scalar]
    /// Whether it is looked for after the text is normalized, or before.
    let isNormalized: Bool
}

extension TokenizerFile {
    private static let words =
        #"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#
    private static let specialWords = #"<\|startoftext\|>|<\|endoftext\|>|"#

    /// Whether the pattern of words begins with the special tokens.
    var splitsSpecial: Bool { pattern == Self.specialWords + Self.words }

    /// How many tokens there are.
    var size: Int { Set(model.vocab.keys).union(added.map(\.content)).count }

    private var pattern: String? { preTokenizer.pretokenizers?.first?.pattern?.regex }

    var specialTokens: [SpecialToken] {
        added.map {
            SpecialToken(
                id: $0.id, text: $0.content, scalars: Array($0.content.unicodeScalars),
                isNormalized: $0.normalized ?? true)
        }
    }

    /// This package has CLIP's normalizer and pattern built in: a file that asks for others
    /// would give other tokens.
    ///
    /// - Throws: ``OnDeviceError/tokenizer(_:)``.
    func check() throws(OnDeviceError) {
        let steps = normalizer.normalizers ?? []
        let splits = preTokenizer.pretokenizers ?? []
        let isClips =
            ["BPE", nil].contains(model.type) && model.suffix == "</w>"
            && ["", nil].contains(model.prefix)
            && steps.map(\.type) == ["NFC", "Replace", "Lowercase"]
            && steps[1].pattern?.regex == #"\s+"# && steps[1].content == " "
            && splits.map(\.type) == ["Split", "ByteLevel"]
            && [Self.words, Self.specialWords + Self.words].contains(pattern)
            && splits[0].behavior == "Removed" && splits[0].invert == true
            && splits[1].addPrefixSpace == false && splits[1].useRegex != false
            && added.allSatisfy(\.isPlain)
        guard isClips else {
            throw .tokenizer(
                "The tokenizer is not CLIP's: it normalizes or splits texts in another way; give "
                    + "the tokenizer.json of the model's repository.")
        }
    }
}

extension TokenizerFile.Added {
    /// Whether it is found as it is, wherever it stands.
    fileprivate var isPlain: Bool {
        content.hasPrefix("<") && ![singleWord, lstrip, rstrip].contains(true)
    }
}

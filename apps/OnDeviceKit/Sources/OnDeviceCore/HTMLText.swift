/// Texts with HTML's references to characters, such as `&lt;`, `&#60;` and `&#x3c;`.
enum HTMLText {
    /// The text with every reference resolved, as Python's `html.unescape` does it: a name
    /// needs no semicolon if it never did, and may have other letters right behind it.
    static func resolved(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
        var found: [Unicode.Scalar] = []
        found.reserveCapacity(text.count)
        var rest = text[...]
        while let first = rest.first {
            rest = rest.dropFirst()
            guard first == "&", let reference = Reference(rest) else {
                found.append(first)
                continue
            }
            found += reference.scalars
            rest = rest.dropFirst(reference.length)
        }
        return found
    }
}

/// What stands for a reference, and how many characters it has behind its `&`.
private struct Reference {
    let scalars: [Unicode.Scalar]
    let length: Int

    init?(_ text: ArraySlice<Unicode.Scalar>) {
        if text.first == "#" {
            let isHex = text.dropFirst().first.map { "xX".unicodeScalars.contains($0) } ?? false
            self.init(number: text.dropFirst(isHex ? 2 : 1), radix: isHex ? 16 : 10)
            return
        }
        let name = text.prefix(Self.maxName).prefix {
            !"\t\n\u{C} <&#;".unicodeScalars.contains($0)
        }
        guard !name.isEmpty else { return nil }
        let isClosed = text.dropFirst(name.count).first == ";"
        self.init(name: String(String.UnicodeScalarView(name)), isClosed: isClosed)
    }

    private static let maxName = 32

    private init?(name: String, isClosed: Bool) {
        let scalars = Array(name.unicodeScalars)
        if isClosed, let found = Self.names[name + ";"] {
            (self.scalars, length) = (found, scalars.count + 1)
            return
        }
        // The longest beginning that is known without a semicolon; the rest stays text.
        for end in stride(from: scalars.count, to: 1, by: -1) {
            if let found = Self.names[String(String.UnicodeScalarView(scalars[..<end]))] {
                (self.scalars, length) = (found, end)
                return
            }
        }
        return nil
    }

    private init?(number text: ArraySlice<Unicode.Scalar>, radix: Int) {
        let digits = text.prefix {
            $0.isASCII && Character($0).hexDigitValue.map { $0 < radix } ?? false
        }
        guard !digits.isEmpty else { return nil }
        let value = digits.reduce(UInt32(0)) {
            min($0 * UInt32(radix) + UInt32(Character($1).hexDigitValue ?? 0), 0x11_0000)
        }
        let isClosed = text.dropFirst(digits.count).first == ";"
        scalars = Self.scalars(of: value)
        length = 1 + (radix == 16 ? 1 : 0) + digits.count + (isClosed ? 1 : 0)
    }

    /// What HTML shows for a number: Windows' characters for those of a control code, a
    /// replacement for what is no character, nothing for what is not allowed.
    private static func scalars(of value: UInt32) -> [Unicode.Scalar] {
        if let windows = windows[value] { return [windows] }
        guard let scalar = Unicode.Scalar(value), value > 0 else { return ["\u{FFFD}"] }
        let isControl =
            value < 0x20 && !(9...13).contains(value) || value == 0xB || value == 0x7F
        let isNone = (0xFDD0...0xFDEF).contains(value) || value & 0xFFFE == 0xFFFE
        return isControl || isNone ? [] : [scalar]
    }

    private static let windows: [UInt32: Unicode.Scalar] = Dictionary(
        uniqueKeysWithValues: zip(
            UInt32(0x80)...,
            "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}Ž\u{8F}\u{90}‘’“”•–—˜™š›œ\u{9D}žŸ".unicodeScalars))

    private static let names: [String: [Unicode.Scalar]] = {
        var names: [String: [Unicode.Scalar]] = [:]
        for entry in htmlEntities.split(whereSeparator: \.isWhitespace) {
            let parts = entry.split(separator: "=")
            let scalars = parts[1].split(separator: "+").compactMap {
                UInt32($0, radix: 16).flatMap(Unicode.Scalar.init)
            }
            let name = parts[0].hasSuffix("!") ? String(parts[0].dropLast()) : String(parts[0])
            names[name + ";"] = scalars
            if name.count < parts[0].count { names[name] = scalars }
        }
        return names
    }()
}

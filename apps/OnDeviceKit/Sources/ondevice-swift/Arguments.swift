import Foundation

/// What is wrong with a command line.
struct UsageError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

/// The words after a command, of which each may be taken once.
struct Arguments {
    private var words: [String]

    init(_ words: [String]) { self.words = words }

    /// Whether an option without a value is there.
    mutating func flag(_ name: String) -> Bool {
        guard let position = words.firstIndex(of: name) else { return false }
        words.remove(at: position)
        return true
    }

    /// The value of an option, if it is there.
    mutating func option(_ name: String) throws -> String? {
        guard let position = words.firstIndex(of: name) else { return nil }
        guard position + 1 < words.count, !words[position + 1].hasPrefix("--") else {
            throw UsageError("\(name) needs a value")
        }
        defer { words.removeSubrange(position...(position + 1)) }
        return words[position + 1]
    }

    /// The value of an option that has to be there.
    mutating func required(_ name: String) throws -> String {
        guard let value = try option(name) else { throw UsageError("\(name) is missing") }
        return value
    }

    /// The number that an option has, or `standard`.
    mutating func number<T: LosslessStringConvertible & Comparable>(
        _ name: String, atLeast least: T, standard: T
    ) throws -> T {
        guard let text = try option(name) else { return standard }
        guard let value = T(text), value >= least else {
            throw UsageError("\(name) is a number from \(least) on; given \(text)")
        }
        return value
    }

    /// All words that are left, which are no options.
    mutating func rest() throws -> [String] {
        let unknown = words.filter { $0.hasPrefix("--") }
        guard unknown.isEmpty else {
            throw UsageError("unknown here, or given twice: \(unknown.joined(separator: ", "))")
        }
        defer { words = [] }
        return words
    }

    /// The one word that is left.
    mutating func only(_ what: String) throws -> String {
        let found = try rest()
        guard found.count == 1 else {
            throw UsageError("give one \(what); given \(found.count)")
        }
        return found[0]
    }

    /// Throws a UsageError if words are left.
    mutating func end() throws {
        let found = try rest()
        guard found.isEmpty else {
            throw UsageError("unexpected: \(found.joined(separator: ", "))")
        }
    }
}

/// Merges pairs of tokens, beginning with bytes, in the order in which they were learned.
struct BytePairs: Sendable {
    /// The token of each byte, and the token of each byte that ends a word.
    private let inside, atEnd: [Int32]
    /// By both tokens: how early the pair was learned, and the token that it becomes.
    private let merges: [UInt64: Merge]

    private struct Merge: Sendable {
        let rank: Int32
        let token: Int32
    }

    /// - Throws: ``OnDeviceError/tokenizer(_:)`` if a byte has no token, or a merge names one
    ///   that is not there.
    init(vocabulary: [String: Int32], merges pairs: [TokenizerFile.Merge]) throws(OnDeviceError)
    {
        func token(_ text: String) throws(OnDeviceError) -> Int32 {
            guard let found = vocabulary[text], found >= 0 else {
                throw .tokenizer("The tokenizer has no token for “\(text)”, which it needs.")
            }
            return found
        }
        var (inside, atEnd) = ([Int32](), [Int32]())
        for letter in Self.alphabet {
            inside.append(try token(letter))
            atEnd.append(try token(letter + "</w>"))
        }
        var merges: [UInt64: Merge] = [:]
        merges.reserveCapacity(pairs.count)
        for (rank, pair) in pairs.enumerated() {
            let key = Self.key(try token(pair.left), try token(pair.right))
            merges[key] = Merge(rank: Int32(rank), token: try token(pair.left + pair.right))
        }
        (self.inside, self.atEnd, self.merges) = (inside, atEnd, merges)
    }

    /// Appends the tokens of one word, given by its UTF-8 bytes.
    ///
    /// Always the pair that was learned first is merged, of equals the one further left. A heap
    /// finds it, so that a word of any length takes no more than n log n steps.
    func append(_ word: some Collection<UInt8>, to ids: inout [Int32]) {
        var symbols = Symbols(word.map { inside[Int($0)] })
        guard let last = word.suffix(1).first else { return }
        symbols.tokens[word.count - 1] = atEnd[Int(last)]
        var heap = Heap()
        for position in 0..<(word.count - 1) { push(position, of: symbols, to: &heap) }
        while let candidate = heap.pop() {
            let position = candidate.position
            guard let found = merge(at: position, of: symbols), found.rank == candidate.rank
            else { continue }  // one of the two has been merged with another since
            symbols.merge(at: position, into: found.token)
            push(position, of: symbols, to: &heap)
            if let before = symbols.before(position) { push(before, of: symbols, to: &heap) }
        }
        symbols.append(to: &ids)
    }

    private func push(_ position: Int, of symbols: Symbols, to heap: inout Heap) {
        guard let found = merge(at: position, of: symbols) else { return }
        heap.push(Heap.Item(rank: found.rank, position: position))
    }

    /// What the token at a position and the next one become.
    private func merge(at position: Int, of symbols: Symbols) -> Merge? {
        guard let next = symbols.after(position) else { return nil }
        return merges[Self.key(symbols.tokens[position], symbols.tokens[next])]
    }

    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// A visible character for each byte: itself if it has a shape, else one from U+0100 on.
    private static let alphabet: [String] = {
        var unused = UInt32(0x100)
        return (UInt32(0)..<256).map { byte in
            let isVisible =
                (33...126).contains(byte) || (161...255).contains(byte) && byte != 173
            defer { unused += isVisible ? 0 : 1 }
            return Unicode.Scalar(isVisible ? byte : unused).map { String(Character($0)) } ?? ""
        }
    }()
}

/// The tokens of a word, each with those before and after it.
private struct Symbols {
    var tokens: [Int32]
    private var next: [Int]
    private var previous: [Int]

    private static let merged: Int32 = -1

    init(_ tokens: [Int32]) {
        self.tokens = tokens
        next = tokens.indices.map { $0 + 1 }
        previous = tokens.indices.map { $0 - 1 }
    }

    /// The position of the token after; nil at the end, or where a token has been merged.
    func after(_ position: Int) -> Int? {
        guard tokens[position] != Self.merged, next[position] < tokens.count else { return nil }
        return next[position]
    }

    func before(_ position: Int) -> Int? { previous[position] < 0 ? nil : previous[position] }

    /// The token at `position` and the one after it become `token`.
    mutating func merge(at position: Int, into token: Int32) {
        let gone = next[position]
        tokens[position] = token
        tokens[gone] = Self.merged
        next[position] = next[gone]
        if next[gone] < tokens.count { previous[next[gone]] = position }
    }

    func append(to ids: inout [Int32]) {
        ids.append(contentsOf: tokens.lazy.filter { $0 != Self.merged })
    }
}

/// Pairs to merge, the smallest first: a binary heap.
private struct Heap {
    struct Item {
        let rank: Int32
        let position: Int

        func isBefore(_ other: Item) -> Bool {
            rank == other.rank ? position < other.position : rank < other.rank
        }
    }

    private var items: [Item] = []

    mutating func push(_ item: Item) {
        items.append(item)
        var child = items.count - 1
        while child > 0, items[child].isBefore(items[(child - 1) / 2]) {
            items.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func pop() -> Item? {
        guard let first = items.first, let last = items.popLast() else { return nil }
        guard !items.isEmpty else { return first }
        items[0] = last
        var parent = 0
        while true {
            let children =
                (2 * parent + 1)..<min(2 * parent + 3, max(items.count, 2 * parent + 1))
            guard let least = children.min(by: { items[$0].isBefore(items[$1]) }),
                items[least].isBefore(items[parent])
            else { return first }
            items.swapAt(parent, least)
            parent = least
        }
    }
}

import Foundation
import OnDeviceCore

/// Measures what an app waits for: a photo's resize, a search, captions to tokens.
func bench(_ arguments: inout Arguments) throws -> Int32 {
    let tokenizer = try arguments.option("--tokenizer")
    let file = try arguments.option("--file")
    try arguments.end()
    guard (tokenizer == nil) == (file == nil) else {
        throw UsageError("--tokenizer and --file, a caption on each line, go together")
    }
    var figures = try resizeFigures() + [searchFigure()]
    if let tokenizer, let file {
        figures.append(try tokenizerFigure(tokenizer, captions: lines(file)))
    }
    print(try StableJSON.text(figures))
    return 0
}

/// The fastest of several runs.
private struct Figure: Encodable {
    let name: String
    /// On the clock, and of this thread's processor time: more of the first than of the second
    /// means that others used the processor, too.
    let milliseconds, processorMilliseconds: Double
    var perSecond: Double?

    init(_ name: String, runs: Int, count: Int? = nil, _ body: () throws -> Void) rethrows {
        var best = (wall: Double.infinity, thread: Double.infinity)
        for _ in 0..<runs {
            let (wall, thread) = (now(CLOCK_MONOTONIC), now(CLOCK_THREAD_CPUTIME_ID))
            try body()
            best.wall = min(best.wall, now(CLOCK_MONOTONIC) - wall)
            best.thread = min(best.thread, now(CLOCK_THREAD_CPUTIME_ID) - thread)
        }
        self.name = name
        (milliseconds, processorMilliseconds) = (best.wall, best.thread)
        perSecond = count.map { Double($0) / best.wall * 1000 }
    }
}

/// Milliseconds on a clock.
private func now(_ clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) * 1e3 + Double(time.tv_nsec) / 1e6
}

private func resizeFigures() throws -> [Figure] {
    var random = Random()
    let pixels = (0..<(4032 * 3024 * 3)).map { _ in
        UInt8(truncatingIfNeeded: random.next() >> 24)
    }
    let photo = try RGBImage(width: 4032, height: 3024, pixels: pixels)
    return try Interpolation.allCases.map { interpolation in
        try Figure("resize 4032 x 3024 to 341 x 256, \(interpolation.rawValue)", runs: 7) {
            _ = try photo.resized(width: 341, height: 256, interpolation: interpolation)
        }
    }
}

private func searchFigure() throws -> Figure {
    var random = Random()
    let (count, dim) = (100_000, 512)
    let folder = FileManager.default.temporaryDirectory
    let url = folder.appendingPathComponent("ondevice-bench-\(getpid()).safetensors")
    defer { try? FileManager.default.removeItem(at: url) }
    let rows = (0..<count).map { _ in (0..<dim).map { _ in random.nextUnit() } }
    let info = EmbeddingIndex.Info(model: "bench", weights: "", normalized: false, dim: dim)
    try EmbeddingIndex.write(rows, paths: rows.indices.map { "\($0)" }, info: info, to: url)
    let index = try EmbeddingIndex(contentsOf: url)
    return try Figure("search in 100,000 x 512", runs: 10) {
        guard try index.search(rows[7])[0].row == 7 else {
            throw UsageError("a row is not the most similar to itself")
        }
    }
}

private func tokenizerFigure(_ path: String, captions: [String]) throws -> Figure {
    let tokenizer = try CLIPTokenizer(contentsOf: URL(fileURLWithPath: path))
    return Figure("\(captions.count) captions to tokens", runs: 5, count: captions.count) {
        for caption in captions { _ = tokenizer.tokens(of: caption) }
    }
}

/// Numbers that look random and are the same each time.
private struct Random: RandomNumberGenerator {
    private var state: UInt64 = 1

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 29
    }

    mutating func nextUnit() -> Float { Float(next() >> 40) / Float(1 << 24) - 0.5 }
}

import Foundation
import OnDeviceCore
import OnDeviceCoreML

/// From frames to answers in two tasks: while one frame is being answered, the next is being
/// prepared. Of those that wait only the newest is kept.
struct Pipeline<Answer: Sendable>: Sendable {
    /// An answer, and how long it took.
    struct Output: Sendable {
        let answer: Answer
        let prepare, infer: Duration
    }

    private struct Prepared: Sendable {
        let pixels: RGBImage
        let took: Duration
    }

    let prepare: @Sendable (Frame) throws -> RGBImage
    let infer: @Sendable (RGBImage) async throws -> Answer

    /// Runs until it is cancelled, or until a frame cannot be answered.
    func run(
        on frames: AsyncStream<Frame>, deliver: @escaping @MainActor @Sendable (Output) -> Void
    ) async throws {
        let (waiting, newest) = AsyncStream.makeStream(
            of: Prepared.self, bufferingPolicy: .bufferingNewest(1))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                defer { newest.finish() }
                for await frame in frames {
                    let (pixels, took) = try Self.timed { try prepare(frame) }
                    newest.yield(Prepared(pixels: pixels, took: took))
                }
            }
            group.addTask {
                for await prepared in waiting {
                    let start = ContinuousClock.now
                    let answer = try await infer(prepared.pixels)
                    let output = Output(
                        answer: answer, prepare: prepared.took,
                        infer: ContinuousClock.now - start)
                    await deliver(output)
                }
            }
            try await group.waitForAll()
        }
    }

    private static func timed<Value>(_ work: () throws -> Value) rethrows -> (Value, Duration) {
        let start = ContinuousClock.now
        let value = try work()
        return (value, ContinuousClock.now - start)
    }
}

/// How many answers there were in the last second.
struct FrameRate {
    private var times: [ContinuousClock.Instant] = []

    mutating func tick() -> Int {
        let now = ContinuousClock.now
        times = times.filter { now - $0 < .seconds(1) } + [now]
        return times.count
    }
}

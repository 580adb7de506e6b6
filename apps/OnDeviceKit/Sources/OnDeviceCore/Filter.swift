import Foundation

/// A resampling filter: how much a pixel counts at a distance, in pixels of the smaller image.
struct Filter {
    /// The distance from which on a pixel counts nothing.
    let support: Double
    let weight: (Double) -> Double

    /// Pillow's filter of that name; `nearest` has none, it takes a pixel as it is.
    init?(_ interpolation: Interpolation) {
        switch interpolation {
        case .nearest: return nil
        case .box: self.init(support: 0.5, weight: box)
        case .bilinear: self.init(support: 1, weight: triangle)
        case .hamming: self.init(support: 1, weight: hamming)
        case .bicubic: self.init(support: 2, weight: cubic)
        case .lanczos: self.init(support: 3, weight: lanczos)
        }
    }

    private init(support: Double, weight: @escaping (Double) -> Double) {
        (self.support, self.weight) = (support, weight)
    }
}

private func box(_ x: Double) -> Double { -0.5 < x && x <= 0.5 ? 1 : 0 }

private func triangle(_ x: Double) -> Double { max(0, 1 - abs(x)) }

private func hamming(_ x: Double) -> Double {
    if x == 0 || abs(x) >= 1 { return x == 0 ? 1 : 0 }
    // Pillow has these two in single precision; their sum is not quite 1.
    return sinc(abs(x)) * (Double(Float(0.54)) + Double(Float(0.46)) * cos(abs(x) * .pi))
}

/// Keys' cubic with a = -1/2.
private func cubic(_ x: Double) -> Double {
    let (x, a) = (abs(x), -0.5)
    if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
}

private func lanczos(_ x: Double) -> Double { -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0 }

private func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }

/// Which pixels of an axis make each pixel of a resized one, and how much each counts.
///
/// The weights are Pillow's: whole numbers, of which 2²² are one, so that sums are exact and
/// the same everywhere.
struct Taps {
    /// Bits behind the point: 8 of 32 are the pixel's, 2 are left for what filters overshoot.
    static let precision: Int32 = 32 - 8 - 2

    /// For each output position, the first pixel that counts.
    private(set) var starts: [Int] = []
    /// For each output position, how many count.
    private(set) var counts: [Int] = []
    /// The weights: of output position `i` those from `i * stride` on.
    private(set) var weights: [Int32] = []
    /// How many weights there is room for at each output position.
    let stride: Int

    /// The taps of those `positions` that are asked for, of an axis of `input` pixels that is
    /// resized to `output`.
    init(input: Int, output: Int, positions: Range<Int>, filter: Filter) {
        let scale = Double(input) / Double(output)
        let widening = max(scale, 1)  // antialiasing: when shrinking, the filter grows
        let support = filter.support * widening
        stride = Int(support.rounded(.up)) * 2 + 1
        for position in positions {
            let center = (Double(position) + 0.5) * scale
            let start = max(0, Int(center - support + 0.5))
            let count = min(input, Int(center + support + 0.5)) - start
            let found = (0..<count).map {
                filter.weight((Double($0 + start) - center + 0.5) * (1 / widening))
            }
            append(found, start: start)
        }
    }

    /// The pixels that count at any of the positions.
    var range: Range<Int> {
        guard let first = starts.first, let last = starts.last else { return 0..<0 }
        return first..<(last + counts[counts.count - 1])
    }

    private mutating func append(_ found: [Double], start: Int) {
        let sum = found.reduce(0, +)
        let one = Double(1 << Self.precision)
        starts.append(start)
        counts.append(found.count)
        for weight in found {
            let share = (sum == 0 ? weight : weight / sum) * one
            weights.append(Int32(share < 0 ? share - 0.5 : share + 0.5))
        }
        weights.append(contentsOf: repeatElement(0, count: stride - found.count))
    }
}

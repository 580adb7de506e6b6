import Foundation
import Testing

@testable import OnDeviceCore

private struct Scored: Decodable {
    let logits: [Float]
    let predictions: [Prediction]
}

@Test func predictionsAreThoseOfPython() throws {
    for golden in try GoldenFiles.json([Scored].self, "predictions.json") {
        let found = try Prediction.top(logits: golden.logits, labels: [])
        #expect(found.map(\.index) == golden.predictions.map(\.index))
        #expect(found.map(\.label) == golden.predictions.map(\.label))
        for (mine, theirs) in zip(found, golden.predictions) {
            #expect(abs(mine.score - theirs.score) < 1e-6)
        }
    }
}

@Test func theTopIsThatOfASort() {
    var state: UInt32 = 3
    let values = (0..<3000).map { _ -> Float in
        state = state &* 1_664_525 &+ 1_013_904_223
        return Float(state >> 22)  // 1024 different values: many are equal
    }
    let sorted = values.indices.sorted { (-values[$0], $0) < (-values[$1], $1) }
    for count in [0, 1, 5, 186, 187, 188, 3000, .max] {
        #expect(Probabilities.top(values, count: count) == Array(sorted.prefix(count)))
    }
    #expect(Probabilities.top(values, count: -1).isEmpty)
    #expect(Probabilities.top([.nan, 1, .nan, 2], count: 3) == [3, 1, 0])
}

@Test func probabilitiesStayFiniteAndAddUpToOne() {
    let found = Probabilities.softmax([1000, 999, -1000])
    #expect(abs(found.reduce(0, +) - 1) < 1e-6 && found[2] == 0)
    #expect(Probabilities.sigmoid([-200, 0, 200]) == [0, 0.5, 1])
    #expect(Probabilities.softmax([]).isEmpty)
    let even = Probabilities.softmax([3, 1], temperature: 1e6)
    #expect(abs(even[0] - 0.5) < 1e-5)
}

@Test func oneLogitIsTwoClasses() throws {
    let found = try Prediction.top(logits: [2], labels: ["cat"])
    #expect(found.map(\.label) == ["cat", "not cat"])
    #expect(try Prediction.top(logits: [2], labels: ["no", "yes"])[0].label == "yes")
}

@Test(arguments: [["a", "b"], ["a", "b", "b"], ["a", "", "c"], ["a", "b", "c", "d"]])
func labelsThatDoNotFitAreRefused(_ labels: [String]) {
    let said = message { _ = try Prediction.top(logits: [1, 2, 3], labels: labels) }
    #expect(said.contains("abel"))
}

@Test func aLabelFileIsReadLineByLine() throws {
    try withFolder { folder in
        let file = folder.appendingPathComponent("labels.txt")
        try Data("\u{FEFF}cat\r\n dog \n\n".utf8).write(to: file)
        #expect(try Labels.read(contentsOf: file) == ["cat", "dog"])
        try Data([0xFF, 0xFE, 0]).write(to: file)
        #expect(message { _ = try Labels.read(contentsOf: file) }.contains("no UTF-8"))
        let missing = folder.appendingPathComponent("none.txt")
        let said = message { _ = try Labels.read(contentsOf: missing) }
        #expect(said.contains("none.txt cannot be read: No such file"))
    }
}

@Test func wordsAreScoredByTheirCosines() throws {
    let texts = try ZeroShot.texts(labels: [" cat", "dog"], templates: ["a {}.", "the {}."])
    #expect(texts == ["a cat.", "a dog.", "the cat.", "the dog."])
    let words = try ZeroShot(
        labels: ["cat", "dog"], embeddings: [[1, 0], [0, 1], [0.6, 0.8], [0, 1]], scale: 10)
    #expect(abs(words.vectors[0][0] - 0.894427) < 1e-5 && words.vectors[1] == [0, 1])
    let found = try words.predictions(for: [1, 0])
    #expect(found.map(\.label) == ["cat", "dog"] && found[0].score > 0.999)
    #expect(message { _ = try words.predictions(for: [1]) }.contains("one model"))
    #expect(message { _ = try ZeroShot.texts(labels: ["cat"]) }.contains("no choice"))
    #expect(message { _ = try ZeroShot.texts(labels: ["a", "a "]) }.contains("twice"))
    let plain = message { _ = try ZeroShot.texts(labels: ["a", "b"], templates: ["a photo"]) }
    #expect(plain.contains("{}"))
}

@Test(arguments: [[2, 2], [-1, -3], [1 << 32, 1 << 32], [Int.max, 3]])
func anArrayThatDoesNotFillItsShapeIsRefused(_ shape: [Int]) {
    for count in [0, 3] {
        let values = [Float](repeating: 0, count: count)
        #expect(message { _ = try Tensor(shape: shape, values: values) }.contains("shape"))
    }
}

@Test func everyHalfIsTheNumberOfSwift() {
    #if !(os(macOS) && arch(x86_64))
        for bits in UInt16.min...UInt16.max {
            let (found, wanted) = (Float(half: bits), Float(Float16(bitPattern: bits)))
            #expect(found == wanted || found.isNaN && wanted.isNaN, "\(bits)")
        }
    #endif
}

@Test func imagesAreReadRowByRow() throws {
    func tensor(_ bytes: [UInt8], _ layout: PixelLayout, bytesPerRow: Int) throws -> Tensor {
        try bytes.withUnsafeBytes {
            try layout.tensor($0, width: 2, height: 2, bytesPerRow: bytesPerRow)
        }
    }
    let grey = try tensor([1, 2, 99, 3, 4], .grey8, bytesPerRow: 3)
    #expect(grey.shape == [1, 1, 2, 2] && grey.values == [1, 2, 3, 4])
    let half = try tensor([0, 0x3C, 0, 0xC0, 0, 0x38, 0, 0], .greyFloat16, bytesPerRow: 4)
    #expect(half.shape == [1, 1, 2, 2] && half.values == [1, -2, 0.5, 0])
    let colors = try tensor(Array(0..<18), .bgra8, bytesPerRow: 9)
    #expect(colors.shape == [1, 3, 2, 2])
    #expect(colors.values == [2, 6, 11, 15, 1, 5, 10, 14, 0, 4, 9, 13])
    for layout in PixelLayout.allCases {
        #expect(message { _ = try tensor([1, 2, 3], layout, bytesPerRow: 8) } != "")
        #expect(message { _ = try tensor([1, 2, 3], layout, bytesPerRow: 1) } != "")
    }
}

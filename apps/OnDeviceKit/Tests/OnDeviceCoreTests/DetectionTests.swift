import Foundation
import Testing

@testable import OnDeviceCore

private struct Suppressed: Decodable {
    let boxes: [[Float]]
    let scores: [Float]
    let classes: [Int]
    let kept: [String: [Int]]
}

@Test func suppressedBoxesAreThoseOfPython() throws {
    let golden = try GoldenFiles.json(Suppressed.self, "boxes.json")
    let boxes = golden.boxes.map { Box(left: $0[0], top: $0[1], right: $0[2], bottom: $0[3]) }
    for (most, kept) in golden.kept {
        let found = BoxDecoder.suppress(
            boxes, scores: golden.scores, classes: golden.classes,
            maxOverlap: try #require(Float(most)))
        #expect(found == kept)
    }
}

/// A white rectangle in a black image, as the model sees it, comes back where it was.
@Test(arguments: CropMode.allCases, [(200, 120), (90, 230), (64, 64)])
func aBoxComesBackToWhereItWas(_ mode: CropMode, _ shape: (Int, Int)) throws {
    let (width, height) = shape
    let box = Box(
        left: Float(width) * 0.4, top: Float(height) * 0.45, right: Float(width) * 0.55,
        bottom: Float(height) * 0.6)
    for sourceSize in [nil, 150] {
        var contract = Contract()
        (contract.size, contract.cropMode, contract.sourceSize) = (160, mode, sourceSize)
        let preprocessor = Preprocessor(contract)
        let seen = try preprocessor.pixels(of: image(width, height, white: box))
        let found = preprocessor.placement(width: width, height: height).box(bright(seen))
        #expect(found.overlap(with: box) > 0.85, "\(found) \(box)")
    }
}

private func image(_ width: Int, _ height: Int, white box: Box) throws -> RGBImage {
    let pixels = (0..<(width * height * 3)).map { i -> UInt8 in
        let (x, y) = (Float(i / 3 % width) + 0.5, Float(i / 3 / width) + 0.5)
        let isInside = box.left < x && x < box.right && box.top < y && y < box.bottom
        return isInside ? 255 : 0
    }
    return try RGBImage(width: width, height: height, pixels: pixels)
}

/// The smallest box around what is white, where nothing else is (padding has a colour).
private func bright(_ image: RGBImage) -> Box {
    let white = (0..<(image.width * image.height)).filter {
        image.pixels[($0 * 3)..<($0 * 3 + 3)].allSatisfy { $0 > 127 }
    }
    let (x, y) = (white.map { $0 % image.width }, white.map { $0 / image.width })
    return Box(
        left: Float(x.min() ?? 0), top: Float(y.min() ?? 0), right: Float((x.max() ?? 0) + 1),
        bottom: Float((y.max() ?? 0) + 1))
}

@Test func boxesAreDecodedAndCutToTheImage() throws {
    var contract = Contract()
    (contract.size, contract.cropPct, contract.cropMode) = (100, 1, .squash)
    let placement = Preprocessor(contract).placement(width: 400, height: 200)
    let boxes = try Tensor(
        shape: [1, 4, 4],
        values: [0.5, 0.5, 0.2, 0.4, 0.5, 0.5, 0.22, 0.4, 0.9, 0.9, 0.4, 0.4, .nan, 0, 1, 1])
    let scores = try Tensor(shape: [1, 4, 2], values: [0.9, 0.1, 0.8, 0.1, 0.2, 0.7, 0.9, 0])
    var decoder = BoxDecoder()
    decoder.areFractions = true
    let found = try decoder.detections(
        boxes: boxes, scores: scores, labels: ["cat", "dog"], placement: placement)
    #expect(found.map(\.label) == ["cat", "dog"] && found.map(\.score) == [0.9, 0.7])
    #expect(
        found[0].box.overlap(with: Box(left: 160, top: 60, right: 240, bottom: 140)) > 0.999)
    let cut = found[1].box
    #expect(cut.right == 400 && cut.bottom == 200 && abs(cut.left - 280) < 1e-3)
    decoder.maxOverlap = 1
    decoder.limit = 2
    let all = try decoder.detections(
        boxes: boxes, scores: scores, labels: [], placement: placement)
    #expect(all.map(\.label) == ["class 0", "class 0"])
    let said = message {
        _ = try decoder.detections(
            boxes: scores, scores: boxes, labels: [], placement: placement)
    }
    #expect(said.contains("(N, 4)"))
}

@Test func thePaletteIsPascalVOCs() throws {
    let golden = try GoldenFiles.json([[UInt8]].self, "palette.json")
    for (index, color) in golden.enumerated() {
        #expect(Coloring.color(ofClass: index) == SIMD3(color[0], color[1], color[2]))
    }
    let image = try Coloring.image(classes: [0, 1, 2, 257], width: 2, height: 2)
    #expect(image.pixels[3..<6] == image.pixels[9..<12])
    #expect(message { _ = try Coloring.image(classes: [0], width: 2, height: 2) } != "")
}

@Test func aMaskHasTheLikeliestClassOfEachPosition() throws {
    let scores = try Tensor(shape: [1, 3, 1, 2], values: [1, 5, 2, 4, 2, 6])
    #expect(try Coloring.classes(scores) == [1, 2])
}

@Test func depthIsLighterTheMoreThereIs() throws {
    let depth = try Tensor(shape: [1, 1, 1, 101], values: (0...100).map { Float($0) * 3 - 7 })
    let image = try Coloring.image(depth: depth)
    let light = (0...100).map { i in
        let color = image.pixels[(i * 3)..<(i * 3 + 3)].map(Double.init)
        return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
    }
    #expect(zip(light, light.dropFirst()).allSatisfy { $0 < $1 })
    let flat = try Coloring.image(depth: Tensor(shape: [1, 2], values: [.nan, 4]))
    #expect(flat.pixels[..<3] == [0, 0, 0] && flat.pixels[3...] == image.pixels[..<3])
}

@Test func anOverlayIsBetweenBothImages() throws {
    let (under, over) = (
        try noise(width: 3, height: 2), RGBImage(width: 3, height: 2, color: .init(1, 2, 3))
    )
    #expect(try under.overlaid(with: over, opacity: 0) == under)
    #expect(try under.overlaid(with: over, opacity: 1) == over)
    let half = try under.overlaid(with: over, opacity: 0.5)
    #expect(half.pixels[0] == UInt8((Float(under.pixels[0]) + 1) / 2 + 0.5))
    let other = try noise(width: 2, height: 3)
    #expect(message { _ = try under.overlaid(with: other, opacity: 1) }.contains("same size"))
}

private struct Detected: Decodable {
    struct Object: Decodable {
        let label: String
        let index: Int
        let score: Float
        let box: [Float]
    }

    let contract: Contract
    let size: [Int]
    let metadata: [String: String]
    let labels: [String]
    let boxes, scores: Tensor
    let objects: [Object]
}

@Test func detectionsAreThoseOfPython() throws {
    for golden in try GoldenFiles.json([Detected].self, "detections.json") {
        let placement = Preprocessor(golden.contract).placement(
            width: golden.size[0], height: golden.size[1])
        let found = try BoxDecoder(metadata: golden.metadata).detections(
            boxes: golden.boxes, scores: golden.scores, labels: golden.labels,
            placement: placement)
        #expect(found.map(\.label) == golden.objects.map(\.label))
        #expect(found.map(\.index) == golden.objects.map(\.index))
        #expect(found.map(\.score) == golden.objects.map(\.score))
        for (one, other) in zip(found, golden.objects) {
            let edges = [
                one.box.left, one.box.top, one.box.right - one.box.left,
                one.box.bottom - one.box.top,
            ]
            #expect(zip(edges, other.box).allSatisfy { abs($0 - $1) < 1e-3 })
        }
    }
}

@Test(arguments: ["much", "1.5", "-1", "nan"])
func damagedMetadataOfBoxesIsRefused(_ said: String) {
    #expect(message { _ = try BoxDecoder(metadata: [BoxDecoder.metadataKey: said]) } != "")
}

@Test func boxesAreDrawnInTheColoursOfTheirClasses() throws {
    let image = try RGBImage(width: 40, height: 30, pixels: [UInt8](repeating: 7, count: 3600))
    func one(_ index: Int, _ left: Float, _ right: Float) -> Detection {
        let box = Box(left: left, top: -4, right: right, bottom: 20)
        return Detection(box: box, label: "", score: 1, index: index)
    }
    let drawn = image.outlined([one(0, 5, 20), one(1, 10, 90)])
    func color(_ x: Int, _ y: Int) -> SIMD3<UInt8> {
        let at = (y * 40 + x) * 3
        return SIMD3(drawn.pixels[at], drawn.pixels[at + 1], drawn.pixels[at + 2])
    }
    let first = Coloring.color(ofClass: 1)
    let second = Coloring.color(ofClass: 2)
    let none = SIMD3<UInt8>(repeating: 7)
    #expect(color(5, 10) == first && color(19, 10) == first && color(12, 19) == first)
    #expect(color(10, 10) == second && color(39, 10) == second && color(30, 0) == second)
    #expect(color(4, 10) == none && color(8, 10) == none && color(30, 20) == none)
    #expect(image.outlined([]) == image)
}

@Test func classesAreListedByTheirShare() {
    let found = Coloring.shares([3, 0, 3, 3, 1, 0])
    #expect(found.map(\.index) == [3, 0, 1])
    #expect(found.map(\.share) == [0.5, Float(2) / 6, Float(1) / 6])
}

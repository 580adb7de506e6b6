import Foundation
import Testing

@testable import OnDeviceCore

private struct Pixels: Decodable {
    struct Case: Decodable {
        let image: Int
        let orientation: Int
        let contract: Contract
        let rgb: Data
    }
    struct Normalized: Decodable {
        let contract: Contract
        let rgb: Data
        let values: [Float]
    }
    let images: [Golden.Pixels]
    let cases: [Case]
    let normalized: Normalized
}

@Test func pixelsAreThoseOfPython() throws {
    let golden = try GoldenFiles.json(Pixels.self, "pixels.json")
    #expect(golden.cases.count == 72)
    for found in golden.cases {
        let image = try golden.images[found.image].image()
        let orientation = try #require(Orientation(rawValue: found.orientation))
        let pixels = try Preprocessor(found.contract).pixels(
            of: image, orientation: orientation)
        #expect(pixels.width == found.contract.size && pixels.height == found.contract.size)
        #expect(
            Data(pixels.pixels) == found.rgb, "\(found.contract), orientation \(orientation)")
    }
}

@Test func allFiltersModesAndOrientationsAreTried() throws {
    let cases = try GoldenFiles.json(Pixels.self, "pixels.json").cases
    #expect(Set(cases.map(\.contract.interpolation)) == Set(Interpolation.allCases))
    #expect(Set(cases.map(\.contract.cropMode)) == Set(CropMode.allCases))
    #expect(Set(cases.map(\.orientation)) == Set(1...8))
    #expect(cases.contains { $0.contract.sourceSize != nil })
}

@Test func normalizedValuesAreThoseOfPython() throws {
    let golden = try GoldenFiles.json(Pixels.self, "pixels.json").normalized
    let size = golden.contract.size
    let image = try RGBImage(width: size, height: size, pixels: [UInt8](golden.rgb))
    let tensor = Preprocessor(golden.contract).normalized(image)
    #expect(tensor.shape == [1, 3, size, size])
    #expect(tensor.values == golden.values)
}

@Test func aResizeToTheSameSizeIsACopy() throws {
    let image = try noise(width: 9, height: 5)
    for interpolation in Interpolation.allCases {
        #expect(try image.resized(width: 9, height: 5, interpolation: interpolation) == image)
    }
}

@Test func orientationsUndoEachOther() throws {
    let image = try noise(width: 4, height: 3)
    let back: [Orientation: Orientation] = [.left: .right, .right: .left]
    for orientation in Orientation.allCases {
        let turned = image.upright(from: orientation)
        #expect(turned.upright(from: back[orientation] ?? orientation) == image)
        #expect((turned == image) == (orientation == .up))
    }
}

@Test func aPPMFileIsReadAsItWasWritten() throws {
    let image = try noise(width: 4, height: 3)
    #expect(try RGBImage(ppm: image.ppm) == image)
    let commented = Array("P6 # made by hand\n4\t3\n# so\n255\n".utf8) + image.pixels
    #expect(try RGBImage(ppm: commented) == image)
}

@Test(arguments: ["", "P6", "P6 4", "P6 4 3 255", "P6 4 3 65535\n", "P5 1 1 255\nabc"])
func whatIsNoPPMFileIsRefused(_ text: String) {
    #expect(message { _ = try RGBImage(ppm: Array(text.utf8)) }.contains("no binary PPM"))
}

@Test func aPPMFileThatIsCutOffIsRefused() {
    let text = "P6 999999999 999999999 255\nabc"
    #expect(message { _ = try RGBImage(ppm: Array(text.utf8)) }.contains("cut off"))
}

@Test(arguments: [(0, 3, 0), (-1, 3, 3), (2, 2, 11), (Int.max, 2, 6), (1, 1, 4)])
func anImageWithoutItsPixelsIsRefused(_ width: Int, _ height: Int, _ count: Int) {
    let pixels = [UInt8](repeating: 0, count: count)
    let said = message { _ = try RGBImage(width: width, height: height, pixels: pixels) }
    #expect(said.hasPrefix("An image"))
}

@Test func anImageThatIsTooLongIsRefused() throws {
    let line = try RGBImage(
        width: 20_000, height: 1, pixels: .init(repeating: 9, count: 60_000))
    for mode in [CropMode.center, .pad] {
        var contract = Contract()
        contract.cropMode = mode
        let said = message { _ = try Preprocessor(contract).pixels(of: line) }
        #expect(said.contains("crop it first"))
    }
}

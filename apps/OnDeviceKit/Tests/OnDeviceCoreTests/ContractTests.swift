import Foundation
import Testing

@testable import OnDeviceCore

private let json = """
    {"size": 256, "crop_pct": 0.95, "crop_mode": "squash", "interpolation": "bilinear",
     "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "fill": [1, 2, 255],
     "source_size": 32}
    """

@Test func aContractIsReadFieldForField() throws {
    let contract = try Contract(json: json)
    #expect(contract.size == 256 && contract.cropPct == 0.95 && contract.sourceSize == 32)
    #expect(contract.cropMode == .squash && contract.interpolation == .bilinear)
    #expect(contract.mean == SIMD3(0.5, 0.4, 0.3) && contract.std == SIMD3(0.2, 0.25, 0.3))
    #expect(contract.fill == SIMD3(1, 2, 255))
}

@Test func aContractIsWrittenAsItIsRead() throws {
    for contract in [try Contract(json: json), Contract()] {
        #expect(try Contract(json: StableJSON.text(contract)) == contract)
    }
}

@Test func fieldsThatAreNotThereKeepTheirDefaults() throws {
    #expect(try Contract(json: "{}") == Contract())
    #expect(try Contract(json: #"{"source_size": null}"#) == Contract())
}

@Test func allProblemsAreNamedAtOnce() {
    let wrong = #"{"size": 0, "crop_pct": 2, "crop_mode": "fit", "mean": [1, 2], "sise": 3}"#
    let said = message { _ = try Contract(json: wrong) }
    let problems = [
        "size is 0, expected 1 to 13377", "crop_pct is 2.0, expected 0.001 to 1",
        "crop_mode is “fit”, expected center, squash, border, pad",
        "mean is [1, 2], expected three numbers", "unknown sise",
    ]
    for problem in problems { #expect(said.contains(problem)) }
}

@Test(arguments: [
    #"{"size": 1e9}"#, #"{"crop_pct": 0}"#, #"{"std": [0, 1, 1]}"#, #"{"fill": [0, 0, 256]}"#,
    #"{"source_size": -1}"#, #"{"interpolation": null}"#, #"{"mean": [0.1, 0.2, 124]}"#, "[]",
    "", "{",
])
func anImpossibleContractIsRefused(_ text: String) {
    #expect(message { _ = try Contract(json: text) }.contains("contract"))
}

@Test func aPackageWithoutAContractSaysSo() {
    let said = message { _ = try Contract(metadata: ["com.apple.x": "y"]) }
    #expect(said.contains("no preprocessing contract"))
}

@Test func valuesThatWereSetByHandAreChecked() throws {
    var contract = Contract()
    (contract.size, contract.cropPct, contract.std) = (0, 0, .zero)
    let image = try noise(width: 3, height: 3)
    let said = message { _ = try Preprocessor(contract).pixels(of: image) }
    for name in ["size is 0", "crop_pct is 0.0", "std is [0.0, 0.0, 0.0]"] {
        #expect(said.contains(name))
    }
}

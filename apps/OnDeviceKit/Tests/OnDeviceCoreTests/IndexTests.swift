import Foundation
import Testing

@testable import OnDeviceCore

private struct Found: Decodable {
    let query: [Float]
    let matches: [Match]
}

@Test(arguments: ["index", "unit"]) func neighboursAreThoseOfPython(_ name: String) throws {
    let index = try EmbeddingIndex(contentsOf: GoldenFiles.url("\(name).safetensors"))
    #expect(index.count == 30 && index.info.dim == 37 && index.info.weights == "00ff")
    for golden in try GoldenFiles.json([Found].self, "\(name).json") {
        let found = try index.search(golden.query, count: golden.matches.count)
        #expect(found.map(\.row) == golden.matches.map(\.row))
        #expect(found.map(\.path) == golden.matches.map(\.path))
        for (mine, theirs) in zip(found, golden.matches) {
            #expect(abs(mine.score - theirs.score) < 1e-6)
        }
    }
}

@Test func anIndexIsReadAsItWasWritten() throws {
    try withFolder { folder in
        let file = folder.appendingPathComponent("new.safetensors")
        let rows: [[Float]] = [[0, 1, 0], [3, 4, 0], [0, 0, -2]]
        let info = EmbeddingIndex.Info(model: "toy", weights: "ab", normalized: false, dim: 3)
        try EmbeddingIndex.write(rows, paths: ["a.jpg", "ä/猫", "c"], info: info, to: file)
        let index = try EmbeddingIndex(contentsOf: file)
        #expect(index.info == info)
        #expect((0..<3).map(index.embedding) == rows)
        #expect((0..<3).map(index.path) == ["a.jpg", "ä/猫", "c"])
        let found = try index.search([30, 40, 0], count: 9)
        #expect(found.map(\.row) == [1, 0, 2] && abs(found[0].score - 1) < 1e-6)
        #expect(message { _ = try index.search([1]) }.contains("one model"))
        let short = message {
            try EmbeddingIndex.write(rows, paths: ["a"], info: info, to: file)
        }
        #expect(short.contains("a path for each"))
        #expect(try EmbeddingIndex(contentsOf: file).count == 3)  // what was there is kept
    }
}

/// The file with one byte changed, or cut off, is refused or still answers: it never traps.
@Test func aDamagedIndexIsRefused() throws {
    let whole = try Data(contentsOf: GoldenFiles.url("index.safetensors"))
    try withFolder { folder in
        let file = folder.appendingPathComponent("damaged.safetensors")
        var refused = 0
        for position in stride(from: 0, to: whole.count, by: 7) {
            for data in [whole.prefix(position), changed(whole, at: position)] {
                try data.write(to: file)
                do {
                    let index = try EmbeddingIndex(contentsOf: file)
                    _ = try index.search(.init(repeating: 1, count: index.info.dim))
                } catch let error as OnDeviceError {
                    refused += error.message.contains("damaged.safetensors") ? 1 : 0
                }
            }
        }
        #expect(refused > whole.count / 7)  // all that are cut off, and many others
    }
}

private func changed(_ data: Data, at position: Int) -> Data {
    var data = data
    data[position] ^= 0x15
    return data
}

@Test func whatIsNoIndexIsRefused() throws {
    try withFolder { folder in
        func refused(_ part: String, _ name: String, _ text: String?) throws {
            let file = folder.appendingPathComponent(name)
            try text.map { try Data($0.utf8).write(to: file) }
            let said = message { _ = try EmbeddingIndex(contentsOf: file) }
            #expect(said.contains(part))
        }
        try refused("has to end with .safetensors", "x.npz", "PK")
        try refused("No such file", "none.safetensors", nil)
        try refused("empty", "empty.safetensors", "")
        try refused("3 bytes", "short.safetensors", "abc")
        try refused("what model made it", "x.safetensors", "\u{2}\0\0\0\0\0\0\0{}")
    }
}

import Foundation
import Testing

@testable import OnDeviceCore

private struct Tokens: Decodable {
    let texts: [String]
    let ids: [[Int32]]
}

private func tokenizer() throws -> CLIPTokenizer {
    try CLIPTokenizer(contentsOf: GoldenFiles.url("tokenizer.json"))
}

@Test func tokensAreThoseOfPython() throws {
    let golden = try GoldenFiles.json(Tokens.self, "tokens.json")
    let tokenizer = try tokenizer()
    #expect(golden.texts.count > 10)
    for (text, ids) in zip(golden.texts, golden.ids) {
        #expect(tokenizer.tokens(of: text) == ids, "\(text)")
    }
}

@Test func aTextIsCutAndKeepsItsEnd() throws {
    let tokenizer = try tokenizer()
    let ids = tokenizer.tokens(of: String(repeating: "dog ", count: 9000))
    #expect(ids.count == 77 && ids.first == tokenizer.start && ids.last == tokenizer.end)
    #expect(
        tokenizer.tokens(of: "") == [tokenizer.start, tokenizer.end]
            + .init(repeating: 0, count: 75))
}

/// A merge at a time over the whole word would take minutes.
@Test(.timeLimit(.minutes(1))) func aWordOfAnyLengthIsQuick() throws {
    let ids = try tokenizer().tokens(of: String(repeating: "photo", count: 4000))
    #expect(ids.last != 0)
}

/// Changes the tokenizer's JSON, and expects `part` in the sentence that is then thrown.
private func refused(_ part: String, _ change: (inout [String: Any]) -> Void) throws {
    let data = try Data(contentsOf: GoldenFiles.url("tokenizer.json"))
    var table = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    change(&table)
    let changed = try JSONSerialization.data(withJSONObject: table)
    let said = message { _ = try CLIPTokenizer(json: changed) }
    #expect(said.contains(part))
}

/// As above, of the JSON's `model`.
private func refusedModel(_ part: String, _ change: (inout [String: Any]) -> Void) throws {
    try refused(part) { table in
        var model = table["model"] as? [String: Any] ?? [:]
        change(&model)
        table["model"] = model
    }
}

@Test func whatWouldGiveOtherTokensIsRefused() throws {
    try refused("not CLIP's") { $0["normalizer"] = ["type": "NFKC"] }
    try refused("not CLIP's") { $0["pre_tokenizer"] = ["type": "Whitespace"] }
    try refused("<|startoftext|>") { $0["added_tokens"] = [Any]() }
    try refused("has to be the last") { table in
        var added = table["added_tokens"] as? [[String: Any]] ?? []
        added[1]["id"] = 3
        table["added_tokens"] = added
    }
    try refused("has no model") { $0["model"] = nil }
    try refusedModel("not CLIP's") { $0["end_of_word_suffix"] = "" }
    try refusedModel("no token for “xy”") { $0["merges"] = [["x", "y"]] }
    try refusedModel("no token for “a</w>”") { model in
        var vocabulary = model["vocab"] as? [String: Any] ?? [:]
        vocabulary["a</w>"] = nil
        model["vocab"] = vocabulary
    }
}

@Test(arguments: ["", "{}", "[1]"]) func aBrokenTokenizerIsOneSentence(_ text: String) {
    let said = message { _ = try CLIPTokenizer(json: Data(text.utf8)) }
    #expect(said.hasPrefix("The tokenizer cannot be read: ") && !said.contains("\n"))
}

import Foundation
import OnDeviceCore

/// The likeliest classes of logits that were computed elsewhere.
func classify(_ arguments: inout Arguments) throws -> Int32 {
    struct Results: Encodable {
        let image: String
        let predictions: [Prediction]
    }
    let labels = try arguments.option("--labels")
    let count = try arguments.number("--top-k", atLeast: 1, standard: 5)
    let least = Float.leastNormalMagnitude
    let temperature = try arguments.number("--temperature", atLeast: least, standard: 1)
    let path = try arguments.only("file of logits")
    let rows = try json([[Float]].self, path, expected: "a list of logits for each image")
    let names = try labels.map { try Labels.read(contentsOf: URL(fileURLWithPath: $0)) } ?? []
    let results = try rows.enumerated().map { row, logits in
        Results(
            image: "\(row)",
            predictions: try Prediction.top(
                logits: logits, labels: names, count: count, temperature: temperature))
    }
    print(try StableJSON.text(results))
    return 0
}

/// The pixels that a model sees of images, as files.
func preprocess(_ arguments: inout Arguments) throws -> Int32 {
    let contract = try Contract(
        json: String(decoding: bytes(arguments.required("--contract")), as: UTF8.self))
    let folder = URL(fileURLWithPath: try arguments.required("--dump"))
    let number = try arguments.number("--orientation", atLeast: 1, standard: 1)
    let isNormalized = arguments.flag("--normalized")
    let paths = try arguments.rest()
    guard let orientation = Orientation(rawValue: number) else {
        throw UsageError("--orientation is EXIF's, a number from 1 to 8; given \(number)")
    }
    let names = paths.map {
        URL(fileURLWithPath: $0).deletingPathExtension().lastPathComponent
    }
    guard !paths.isEmpty, Set(names).count == names.count else {
        throw UsageError("give images whose names differ; given \(paths.count)")
    }
    let preprocessor = Preprocessor(contract)
    // All are computed before any is written: an image that cannot be used leaves no files.
    let files = try zip(paths, names).map { path, name in
        let image = try RGBImage(ppm: [UInt8](bytes(path)))
        let pixels = try preprocessor.pixels(of: image, orientation: orientation)
        let data = isNormalized ? preprocessor.normalized(pixels).bytes : Data(pixels.ppm)
        return (name: "\(name).\(isNormalized ? "f32" : "ppm")", data: data)
    }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for file in files { try write(file.data, to: folder.appendingPathComponent(file.name)) }
    return 0
}

extension Tensor {
    /// The values as they lie in memory: float32, little-endian.
    fileprivate var bytes: Data { values.withUnsafeBytes { Data($0) } }
}

/// The images of an index that are most similar to a vector.
func search(_ arguments: inout Arguments) throws -> Int32 {
    struct Results: Encodable {
        let model: String
        let results: [Match]
    }
    let path = try arguments.required("--index")
    let query = try arguments.required("--query")
    let count = try arguments.number("--top-k", atLeast: 1, standard: 5)
    try arguments.end()
    let vector = try json([Float].self, query, expected: "a list of numbers")
    let index = try EmbeddingIndex(contentsOf: URL(fileURLWithPath: path))
    let results = try index.search(vector, count: count)
    print(try StableJSON.text(Results(model: index.info.model, results: results)))
    return 0
}

/// The token ids of texts, a list for each.
func tokenize(_ arguments: inout Arguments) throws -> Int32 {
    let path = try arguments.required("--tokenizer")
    let file = try arguments.option("--file")
    let texts = try arguments.rest() + (file.map(lines) ?? [])
    guard !texts.isEmpty else { throw UsageError("give texts, or a file of them with --file") }
    let tokenizer = try CLIPTokenizer(contentsOf: URL(fileURLWithPath: path))
    for text in texts {
        let ids = tokenizer.tokens(of: text).map(String.init)
        print("[\(ids.joined(separator: ","))]")
    }
    return 0
}

/// Whether this machine computes what the model did where it was exported.
func selfCheck(_ arguments: inout Arguments) async throws -> Int32 {
    let outputs = try arguments.option("--outputs")
    let path = try arguments.only("golden file")
    let golden = try Golden(contentsOf: URL(fileURLWithPath: path))
    let computed = try outputs.map {
        try json([String: Tensor].self, $0, expected: "outputs with their shape and values")
    }
    let network = computed.map { computed in { @Sendable (_: RGBImage) in computed } }
    let report = try await SelfCheck(golden).run(network: network)
    print(try StableJSON.text(report))
    return report.passed ? 0 : 1
}

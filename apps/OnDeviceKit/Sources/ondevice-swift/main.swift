import Foundation
import OnDeviceCore

let usage = """
    ondevice-swift: what an app does with a model of ondevice, on any machine.

      classify LOGITS.json [--labels FILE] [--top-k N] [--temperature T]
      preprocess IMAGE.ppm... --contract FILE --dump FOLDER [--orientation N] [--normalized]
      search --index FILE --query FILE [--top-k N]
      tokenize [TEXT...] --tokenizer FILE [--file FILE]
      selfcheck FILE.golden.json [--outputs FILE]
      bench [--tokenizer FILE --file FILE]

    Results are JSON on stdout. The exit status is 2 after an error, 1 if a self check differs.
    """

let commands: [String: @Sendable (inout Arguments) async throws -> Int32] = [
    "bench": bench, "classify": classify, "preprocess": preprocess, "search": search,
    "selfcheck": selfCheck, "tokenize": tokenize,
]

func run(_ words: [String]) async -> Int32 {
    guard let name = words.first, !["-h", "--help", "help"].contains(name) else {
        print(usage)
        return words.isEmpty ? 2 : 0
    }
    do {
        guard let command = commands[name] else {
            let known = commands.keys.sorted().joined(separator: ", ")
            throw UsageError("there is no command \(name); there are \(known)")
        }
        var arguments = Arguments(Array(words.dropFirst()))
        return try await command(&arguments)
    } catch {
        let text = (error as? UsageError)?.message ?? error.localizedDescription
        FileHandle.standardError.write(Data("ondevice-swift: \(text)\n".utf8))
        return 2
    }
}

exit(await run(Array(CommandLine.arguments.dropFirst())))

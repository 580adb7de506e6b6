import OnDeviceCore
import OnDeviceCoreML
import SwiftUI

/// Which of the user's own words fits best what the camera sees.
struct WordsView: View {
    @Environment(ModelLibrary.self) private var library
    @State private var session = WordsSession()
    @AppStorage("words") private var words = "cat, dog, cup, keyboard, plant"

    var body: some View {
        NavigationStack {
            ScrollView {
                VStack(alignment: .leading, spacing: 16) {
                    TextField("Labels, with commas between them", text: $words)
                        .textFieldStyle(.roundedBorder)
                        .accessibilityHint("What the photo may show, with commas between.")
                    if let problem = session.problem {
                        ProblemView(problem: problem)
                    } else {
                        CameraPreview(session: session.camera.session)
                            .aspectRatio(0.75, contentMode: .fit)
                            .accessibilityLabel("Camera")
                        PredictionList(predictions: session.predictions)
                    }
                }
                .padding()
            }
            .navigationTitle("Words")
        }
        .task(id: Request(words: words, models: library.models)) {
            await session.watch(words, in: library)
        }
    }

    private struct Request: Hashable {
        let words: String
        let models: [ModelFiles]
    }
}

/// What the tab shows.
@MainActor @Observable
final class WordsSession {
    let camera = Camera()
    private(set) var predictions: [Prediction] = []
    private(set) var problem: String?

    /// Compares what the camera sees with the words, until it is cancelled.
    func watch(_ words: String, in library: ModelLibrary) async {
        problem = nil
        do {
            try await Task.sleep(for: .milliseconds(400))  // until the typing stops
            let image = try await library.encoder()
            let classes = try await zeroShot(words, in: library)
            let frames = try await camera.start()
            defer { camera.stop() }
            let pipeline = Pipeline(
                prepare: { try image.prepare($0.buffer) },
                infer: { try classes.predictions(for: try await image.embedding(for: $0)) })
            try await pipeline.run(on: frames) { [weak self] output in
                self?.predictions = output.answer
            }
        } catch is CancellationError {
        } catch {
            problem = error.localizedDescription
        }
    }

    private func zeroShot(_ words: String, in library: ModelLibrary) async throws -> ZeroShot {
        let labels = words.split(separator: ",").map {
            $0.trimmingCharacters(in: .whitespaces)
        }.filter { !$0.isEmpty }
        let text = try await library.textEncoder()
        var vectors: [[Float]] = []
        for sentence in try ZeroShot.texts(labels: labels) {
            vectors.append(try await text.embedding(of: sentence))
        }
        return try ZeroShot(labels: labels, embeddings: vectors)
    }
}

import OnDeviceCore
import OnDeviceCoreML
import PhotosUI
import SwiftUI
import UIKit

/// Finds photos of the album by words, or by a photo like them.
struct FindView: View {
    @Environment(ModelLibrary.self) private var library
    @State private var session = FindSession()
    @State private var words = ""
    @State private var photo: PhotosPickerItem?

    var body: some View {
        NavigationStack {
            List {
                if let problem = session.problem { ProblemView(problem: problem) }
                progress
                ForEach(session.matches, id: \.row) { MatchRow(match: $0) }
            }
            .navigationTitle("Find")
            .searchable(text: $words, prompt: "What the photo shows")
            .onSubmit(of: .search) {
                Task { await session.find(words: words, in: library) }
            }
            .toolbar {
                PhotosPicker(selection: $photo, matching: .images) {
                    Label("Find photos like one", systemImage: "photo.badge.magnifyingglass")
                }
            }
        }
        .task(id: library.models) { await session.build(in: library) }
        .onChange(of: photo) { _, item in
            Task { await session.find(like: item, in: library) }
        }
    }

    @ViewBuilder private var progress: some View {
        if let progress = session.progress, progress.done < progress.total {
            ProgressView(value: Double(progress.done), total: Double(max(progress.total, 1))) {
                Text("\(progress.done) of \(progress.total) photos looked at")
            }
        }
    }
}

/// A photo that was found, with how similar it is.
struct MatchRow: View {
    let match: Match
    @State private var image: UIImage?

    var body: some View {
        HStack {
            if let image {
                Image(uiImage: image)
                    .resizable()
                    .scaledToFill()
                    .frame(width: 96, height: 96)
                    .clipped()
            }
            Text(match.score.formatted(.number.precision(.fractionLength(2))))
                .monospacedDigit()
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel("A photo")
        .accessibilityValue("Similarity \(match.score.formatted())")
        .task(id: match.path) { image = await AlbumIndex.thumbnail(match.path, edge: 192) }
    }
}

/// What the tab shows.
@MainActor @Observable
final class FindSession {
    private(set) var matches: [Match] = []
    private(set) var progress: AlbumIndex.Progress?
    private(set) var problem: String?
    private var index: AlbumIndex?
    private static let count = 30

    /// Looks at all photos that were not looked at before, until it is cancelled.
    func build(in library: ModelLibrary) async {
        await attempt {
            let encoder = try await library.encoder()
            let index = try AlbumIndex(encoder: encoder.info)
            self.index = index
            try await index.build(with: encoder) { [weak self] in self?.progress = $0 }
        }
    }

    /// Finds photos that show what the words say.
    func find(words: String, in library: ModelLibrary) async {
        await attempt {
            let text = try await library.textEncoder()
            let sentence = ZeroShot.template.replacingOccurrences(of: "{}", with: words)
            try await show(try await text.embedding(of: sentence))
        }
    }

    /// Finds photos that are like one.
    func find(like item: PhotosPickerItem?, in library: ModelLibrary) async {
        guard let item else { return }
        await attempt {
            guard let data = try await item.loadTransferable(type: Data.self) else {
                throw OnDeviceError.image("The photo is not on this device; open it in Photos.")
            }
            let encoder = try await library.encoder()
            try await show(try await encoder.embedding(for: try encoder.prepare(data)))
        }
    }

    private func show(_ vector: [Float]) async throws {
        guard let index else {
            throw OnDeviceError.index("The photos have not been looked at yet; wait a little.")
        }
        matches = try await index.search(vector, count: Self.count)
    }

    private func attempt(_ work: () async throws -> Void) async {
        problem = nil
        do {
            try await work()
        } catch is CancellationError {
        } catch {
            problem = error.localizedDescription
        }
    }
}

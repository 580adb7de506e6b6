import OnDeviceCore
import OnDeviceCoreML
import PhotosUI
import SwiftUI

/// One screen: choose a photo, see what the model says of it.
struct ContentView: View {
    @State private var session = Session()
    @State private var chosen: PhotosPickerItem?

    var body: some View {
        NavigationStack {
            List {
                photo
                results
                check
            }
            .navigationTitle(session.title)
            .toolbar {
                PhotosPicker("Choose a photo", selection: $chosen, matching: .images)
                    .disabled(!session.isReady)
            }
        }
        .task { await session.load() }
        .onChange(of: chosen) { _, item in
            Task { await session.look(at: item) }
        }
    }

    @ViewBuilder private var photo: some View {
        if let image = session.seen {
            Section("What the model sees") {
                Image(image, scale: 1, label: Text("The photo, as the model sees it"))
                    .resizable()
                    .scaledToFit()
                    .frame(maxWidth: .infinity, maxHeight: 240)
            }
        } else if let problem = session.problem {
            ContentUnavailableView(
                "That did not work", systemImage: "exclamationmark.triangle",
                description: Text(problem))
        } else {
            ContentUnavailableView(
                "No photo yet", systemImage: "photo", description: Text("Choose one above."))
        }
    }

    @ViewBuilder private var results: some View {
        if !session.rows.isEmpty {
            Section(session.latency) {
                ForEach(session.rows) { row in
                    LabeledContent(row.title, value: row.value)
                }
            }
        }
    }

    @ViewBuilder private var check: some View {
        if let report = session.report {
            Section("Self check") {
                Label(
                    report.message,
                    systemImage: report.passed ? "checkmark.seal" : "exclamationmark.triangle")
            }
        }
    }
}

/// What is shown of a photo.
struct Results {
    let image: RGBImage
    let rows: [Row]
}

/// A line of the results.
struct Row: Identifiable {
    let id = UUID()
    let title: String
    let value: String
}

func percent(_ share: Float) -> String {
    share.formatted(.percent.precision(.fractionLength(1)))
}

/// What the screen shows.
@MainActor @Observable
final class Session {
    private(set) var title = modelName
    private(set) var seen: CGImage?
    private(set) var rows: [Row] = []
    private(set) var latency = ""
    private(set) var report: SelfCheck.Report?
    private(set) var problem: String?
    private var model: Model?

    var isReady: Bool { model != nil }

    /// Loads the model and checks on its golden image that this device computes the same.
    func load() async {
        guard model == nil else { return }
        await attempt {
            let model = try await Model(ModelLocation.files())
            try await model.prewarm()
            self.model = model
            self.title = model.info.name
            self.report = try await model.selfCheck()
        }
    }

    /// Shows what the model says of a chosen photo.
    func look(at item: PhotosPickerItem?) async {
        guard let model, let item else { return }
        await attempt {
            guard let data = try await item.loadTransferable(type: Data.self) else {
                throw OnDeviceError.image("The photo is not on this device; open it in Photos.")
            }
            let pixels = try model.prepare(data)
            self.seen = pixels.cgImage
            let start = ContinuousClock.now
            let found = try await results(of: pixels, by: model)
            let milliseconds = (ContinuousClock.now - start).milliseconds
            self.latency = "\(milliseconds.formatted(.number.precision(.fractionLength(1)))) ms"
            (self.seen, self.rows) = (found.image.cgImage, found.rows)
        }
    }

    private func attempt(_ work: () async throws -> Void) async {
        do {
            problem = nil
            try await work()
        } catch {
            problem = error.localizedDescription
        }
    }
}

import OnDeviceCore
import OnDeviceCoreML
import PhotosUI
import SwiftUI

/// What the camera or a photo shows: the five most likely classes.
struct ClassifyView: View {
    @Environment(ModelLibrary.self) private var library
    @State private var session = ClassifySession()
    @State private var selection: ModelFiles?
    @State private var photo: PhotosPickerItem?

    var body: some View {
        NavigationStack {
            content
                .navigationTitle("Classify")
                .toolbar {
                    ToolbarItem(placement: .topBarLeading) { ModelMenu(selection: $selection) }
                    ToolbarItem(placement: .topBarTrailing) {
                        PhotosPicker(selection: $photo, matching: .images) {
                            Label("Choose a photo", systemImage: "photo")
                        }
                    }
                }
        }
        .task(id: selection) { await session.watch(selection, in: library) }
        .onChange(of: photo) { _, item in
            Task { await session.look(at: item, with: selection, in: library) }
        }
    }

    @ViewBuilder private var content: some View {
        if library.models.isEmpty {
            ProblemView(
                problem: "There is no model; import a .mlpackage that ondevice exported.")
        } else {
            ScrollView {
                VStack(alignment: .leading, spacing: 16) {
                    seen
                    if let problem = session.problem ?? library.problem {
                        Label(problem, systemImage: "exclamationmark.triangle")
                    }
                    PredictionList(predictions: session.predictions)
                    if !session.predictions.isEmpty {
                        SpeedLine(
                            prepare: session.prepare, infer: session.infer, rate: session.rate)
                    }
                    if let check = session.check {
                        Label(check.message, systemImage: check.symbol).font(.caption)
                    }
                }
                .padding()
            }
        }
    }

    @ViewBuilder private var seen: some View {
        if let photo = session.photo {
            Image(photo, scale: 1, label: Text("The photo as the model sees it"))
                .resizable()
                .scaledToFit()
            Button("Back to the camera") {
                Task { await session.watch(selection, in: library) }
            }
        } else {
            CameraPreview(session: session.camera.session)
                .aspectRatio(0.75, contentMode: .fit)
                .accessibilityLabel("Camera")
        }
    }
}

/// What the self check of a model found, or why there was none.
struct CheckLine {
    let message: String
    let symbol: String

    /// Checks a model against its golden file.
    init(of model: Model) async {
        do {
            let report = try await model.selfCheck()
            message = report.message
            symbol = report.passed ? "checkmark.seal" : "xmark.seal"
        } catch {
            message = "Not checked: \(error.localizedDescription)"
            symbol = "questionmark"
        }
    }
}

/// What the tab shows.
@MainActor @Observable
final class ClassifySession {
    let camera = Camera()
    private(set) var predictions: [Prediction] = []
    private(set) var prepare = 0.0
    private(set) var infer = 0.0
    private(set) var rate: Int?
    private(set) var photo: CGImage?
    private(set) var problem: String?
    private(set) var check: CheckLine?
    private var frameRate = FrameRate()

    /// Classifies what the camera sees, until it is cancelled.
    func watch(_ files: ModelFiles?, in library: ModelLibrary) async {
        guard let files else { return }
        photo = nil
        await attempt {
            let model = try await library.model(files)
            check = await CheckLine(of: model)
            let frames = try await camera.start()
            defer { camera.stop() }
            let pipeline = Pipeline(
                prepare: { try model.prepare($0.buffer) },
                infer: { try await model.predictions(for: $0) })
            try await pipeline.run(on: frames) { [weak self] output in
                self?.show(output)
            }
        }
    }

    private func show(_ output: Pipeline<[Prediction]>.Output) {
        guard photo == nil else { return }
        predictions = output.answer
        prepare = output.prepare.milliseconds
        infer = output.infer.milliseconds
        rate = frameRate.tick()
    }

    /// Classifies a photo that was chosen.
    func look(
        at item: PhotosPickerItem?, with files: ModelFiles?, in library: ModelLibrary
    ) async {
        guard let item, let files else { return }
        camera.stop()
        await attempt {
            guard let data = try await item.loadTransferable(type: Data.self) else {
                throw OnDeviceError.image("The photo is not on this device; open it in Photos.")
            }
            let model = try await library.model(files)
            let start = ContinuousClock.now
            let pixels = try model.prepare(data)
            let prepared = ContinuousClock.now
            predictions = try await model.predictions(for: pixels)
            infer = (ContinuousClock.now - prepared).milliseconds
            prepare = (prepared - start).milliseconds
            rate = nil
            photo = pixels.cgImage
        }
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

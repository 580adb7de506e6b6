import OnDeviceCoreML
import SwiftUI
import UniformTypeIdentifiers

/// Chooses a model, or imports one through the Files app.
struct ModelMenu: View {
    @Environment(ModelLibrary.self) private var library
    @Binding var selection: ModelFiles?
    @State private var isImporting = false

    var body: some View {
        Menu {
            Picker("Model", selection: $selection) {
                ForEach(library.models) { files in
                    Text(files.name).tag(Optional(files))
                }
            }
            Button("Import a model…", systemImage: "square.and.arrow.down") {
                isImporting = true
            }
        } label: {
            Label(selection?.name ?? "Model", systemImage: "cpu")
        }
        .accessibilityHint("Chooses which model is used, or imports one.")
        .fileImporter(
            isPresented: $isImporting, allowedContentTypes: Self.types,
            allowsMultipleSelection: true
        ) { library.add($0) }
        .onChange(of: library.models, initial: true) { _, models in
            if selection == nil { selection = models.first }
        }
    }

    private static let types: [UTType] = [
        UTType(importedAs: "com.apple.coreml.mlpackage"), .package, .folder, .json,
    ]
}

/// Says in one screen what is missing, and what to do about it.
struct ProblemView: View {
    let problem: String

    var body: some View {
        ContentUnavailableView(
            "Not yet", systemImage: "exclamationmark.triangle", description: Text(problem))
    }
}

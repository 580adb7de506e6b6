import SwiftUI

@main
struct OnDeviceCameraApp: App {
    @State private var library = ModelLibrary()

    var body: some Scene {
        WindowGroup {
            RootView()
                .environment(library)
                .task { library.refresh() }
        }
    }
}

import SwiftUI
import UIKit

/// The four tabs; `-tab words` on the command line opens one, for screenshots.
struct RootView: View {
    @Environment(ModelLibrary.self) private var library
    @State private var tab = Tab.asked ?? .classify

    enum Tab: String, Hashable {
        case classify, words, find, bench

        static var asked: Tab? {
            UserDefaults.standard.string(forKey: "tab").flatMap(Tab.init)
        }
    }

    var body: some View {
        TabView(selection: $tab) {
            ClassifyView()
                .tabItem { Label("Classify", systemImage: "camera") }
                .tag(Tab.classify)
            WordsView()
                .tabItem { Label("Words", systemImage: "text.magnifyingglass") }
                .tag(Tab.words)
            FindView()
                .tabItem { Label("Find", systemImage: "photo.on.rectangle") }
                .tag(Tab.find)
            BenchView()
                .tabItem { Label("Bench", systemImage: "stopwatch") }
                .tag(Tab.bench)
        }
        .onReceive(
            NotificationCenter.default.publisher(
                for: UIApplication.didReceiveMemoryWarningNotification)
        ) { _ in
            Task { await library.forget() }
        }
    }
}

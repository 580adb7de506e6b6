import OnDeviceCore
import OnDeviceCoreML
import SwiftUI
import UIKit

/// How fast a model is on this device, and where it runs.
struct BenchView: View {
    @State private var session = BenchSession()
    @State private var selection: ModelFiles?

    var body: some View {
        NavigationStack {
            List {
                if let problem = session.problem { ProblemView(problem: problem) }
                if let report = session.report { results(of: report) }
            }
            .navigationTitle("Bench")
            .toolbar {
                ToolbarItem(placement: .topBarLeading) { ModelMenu(selection: $selection) }
                ToolbarItem(placement: .topBarTrailing) { action }
            }
        }
    }

    @ViewBuilder private var action: some View {
        if session.isRunning {
            ProgressView().accessibilityLabel("Measuring")
        } else {
            Button("Measure", systemImage: "play") {
                Task { await session.measure(selection) }
            }
            .disabled(selection == nil)
        }
    }

    @ViewBuilder private func results(of report: DeviceReport) -> some View {
        Section("\(report.package) on \(report.name)") {
            LabeledContent("Low power mode", value: report.lowPower ? "on" : "off")
            LabeledContent("Heat", value: report.thermalState)
            if let json = try? StableJSON.text(report) {
                ShareLink("Share as JSON", item: json)
            }
        }
        ForEach(report.units, id: \.units) { unit in
            Section(ComputeUnits(rawValue: unit.units)?.title ?? unit.units) {
                LabeledContent("First load", value: milliseconds(unit.firstLoad))
                LabeledContent(
                    "Warm, median",
                    value: "\(milliseconds(unit.median)) ± \(milliseconds(unit.spread / 2))")
                ForEach(unit.placement.sorted { $0.value > $1.value }, id: \.key) { place in
                    LabeledContent("Operations on \(place.key)", value: "\(place.value)")
                }
            }
        }
    }

    private func milliseconds(_ value: Double) -> String {
        "\(value.formatted(.number.precision(.fractionLength(2)))) ms"
    }
}

/// What the tab shows.
@MainActor @Observable
final class BenchSession {
    private(set) var report: DeviceReport?
    private(set) var isRunning = false
    private(set) var problem: String?

    func measure(_ files: ModelFiles?) async {
        guard let files, !isRunning else { return }
        isRunning = true
        defer { isRunning = false }
        do {
            problem = nil
            report = try await Bench().report(on: files, device: Self.device)
        } catch {
            problem = error.localizedDescription
        }
    }

    /// Such as "iPhone17,3, iOS 18.1".
    private static var device: String {
        var system = utsname()
        uname(&system)
        let name = withUnsafeBytes(of: &system.machine) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        let current = UIDevice.current
        return "\(name), \(current.systemName) \(current.systemVersion)"
    }
}

import OnDeviceCore
import SwiftUI

/// The most likely classes, each with a bar.
struct PredictionList: View {
    let predictions: [Prediction]

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            ForEach(predictions, id: \.index) { prediction in
                ProgressView(value: Double(min(max(prediction.score, 0), 1))) {
                    HStack {
                        Text(prediction.label)
                        Spacer()
                        Text(percent(prediction)).monospacedDigit()
                    }
                    .font(.body)
                }
                .accessibilityElement(children: .ignore)
                .accessibilityLabel(prediction.label)
                .accessibilityValue(percent(prediction))
            }
        }
    }

    private func percent(_ prediction: Prediction) -> String {
        prediction.score.formatted(.percent.precision(.fractionLength(0)))
    }
}

/// Milliseconds and frames a second, on one line.
struct SpeedLine: View {
    let prepare, infer: Double
    let rate: Int?

    var body: some View {
        Text(text)
            .font(.caption)
            .monospacedDigit()
            .foregroundStyle(.secondary)
    }

    private var text: String {
        let style = FloatingPointFormatStyle<Double>.number.precision(.fractionLength(1))
        let times = "\(prepare.formatted(style)) ms to prepare, \(infer.formatted(style)) ms"
        return rate.map { "\(times), \($0) a second" } ?? times
    }
}

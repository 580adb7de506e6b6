#if canImport(CoreML)
    import CoreML

    /// The processors that Core ML may use, by the names that `ondevice verify` reports.
    public enum ComputeUnits: String, Codable, Sendable, CaseIterable {
        case all = "ALL"
        case neuralEngine = "CPU_AND_NE"
        case gpu = "CPU_AND_GPU"
        case cpu = "CPU_ONLY"

        /// For people.
        public var title: String {
            switch self {
            case .all: "All"
            case .neuralEngine: "Neural Engine"
            case .gpu: "GPU"
            case .cpu: "CPU"
            }
        }

        var configuration: MLModelConfiguration {
            let configuration = MLModelConfiguration()
            configuration.computeUnits =
                switch self {
                case .all: .all
                case .neuralEngine: .cpuAndNeuralEngine
                case .gpu: .cpuAndGPU
                case .cpu: .cpuOnly
                }
            return configuration
        }
    }
#endif

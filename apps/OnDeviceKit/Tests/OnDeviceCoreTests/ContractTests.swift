import Testing

@testable import OnDeviceCore

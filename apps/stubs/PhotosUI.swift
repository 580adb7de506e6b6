// https://developer.apple.com/documentation/photosui/photospicker
// https://developer.apple.com/documentation/photosui/photospickeritem
@_exported import Photos
import SwiftUI

public protocol Transferable {}
extension Data: Transferable {}

public struct PHPickerFilter: Sendable {
    public static let images = PHPickerFilter()
}

public struct PhotosPickerItem: Hashable, Sendable {
    public func loadTransferable<T: Transferable>(type: T.Type) async throws -> T? { nil }
}

public struct PhotosPicker<Content: View>: Primitive {
    public init(
        selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil,
        @ViewBuilder label: () -> Content
    ) {}
}
extension PhotosPicker where Content == Text {
    public init(
        _ title: some StringProtocol, selection: Binding<PhotosPickerItem?>,
        matching filter: PHPickerFilter? = nil
    ) {}
}

// https://developer.apple.com/documentation/swiftui/view
// https://developer.apple.com/documentation/swiftui/app
// https://developer.apple.com/documentation/swiftui/state
// https://developer.apple.com/documentation/swiftui/appstorage
// https://developer.apple.com/documentation/swiftui/tabview
// https://developer.apple.com/documentation/swiftui/list
// https://developer.apple.com/documentation/swiftui/contentunavailableview
// https://developer.apple.com/documentation/swiftui/view/fileimporter(ispresented:allowedcontenttypes:allowsmultipleselection:oncompletion:)
// https://developer.apple.com/documentation/swiftui/uiviewrepresentable
@_exported import CoreGraphics
@_exported import Observation
import UIKit
import UniformTypeIdentifiers

@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View { public var body: Never { fatalError() } }
extension Optional: View where Wrapped: View { public var body: Never { fatalError() } }

/// Every view that has no body of its own to tell.
public protocol Primitive: View where Body == Never {}
extension Primitive { public var body: Never { fatalError() } }

public struct AnyContent: Primitive { public nonisolated init() {} }
public struct EmptyView: Primitive { public nonisolated init() {} }
public struct TupleView<each Content: View>: Primitive { nonisolated init() {} }
public struct ConditionalContent<First: View, Second: View>: Primitive { nonisolated init() {} }

@resultBuilder public struct ViewBuilder {
    public static func buildBlock() -> EmptyView { EmptyView() }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { content }
    public static func buildBlock<each Content: View>(
        _ content: repeat each Content
    ) -> TupleView<repeat each Content> { TupleView() }
    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
    public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
    public static func buildEither<First: View, Second: View>(
        first: First
    ) -> ConditionalContent<First, Second> { ConditionalContent() }
    public static func buildEither<First: View, Second: View>(
        second: Second
    ) -> ConditionalContent<First, Second> { ConditionalContent() }
}

// State.

@propertyWrapper public struct State<Value> {
    public init(wrappedValue: Value) {}
    public init() {}
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { Binding() }
}
extension State where Value: ExpressibleByNilLiteral {}

@propertyWrapper public struct Binding<Value> {
    public init() {}
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { self }
}

@propertyWrapper public struct Environment<Value> {
    public init(_ type: Value.Type) where Value: AnyObject, Value: Observable {}
    public var wrappedValue: Value { fatalError() }
}

@propertyWrapper public struct AppStorage<Value> {
    public init(wrappedValue: Value, _ key: String) where Value == String {}
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { Binding() }
}

// Apps.

@MainActor @preconcurrency public protocol Scene {}
@MainActor @preconcurrency public protocol App {
    associatedtype Body: Scene
    @SceneBuilder @MainActor @preconcurrency var body: Body { get }
    @MainActor @preconcurrency init()
}
extension App { @MainActor @preconcurrency public static func main() {} }
@resultBuilder public struct SceneBuilder {
    public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}
public struct WindowGroup<Content: View>: Scene {
    public nonisolated init(@ViewBuilder content: () -> Content) {}
}

// Views.

public struct Text: Primitive {
    public init(_ content: some StringProtocol) {}
    public func monospacedDigit() -> Text { self }
    public func font(_ font: Font?) -> Text { self }
}
public struct Label<Title: View, Icon: View>: Primitive {}
extension Label where Title == Text, Icon == Image {
    public init(_ title: some StringProtocol, systemImage: String) {}
}
public struct Image: Primitive {
    public init(_ cgImage: CGImage, scale: CGFloat, label: Text) {}
    public init(uiImage: UIImage) {}
    public init(systemName: String) {}
    public func resizable() -> Image { self }
}
public struct Button<Title: View>: Primitive {}
extension Button where Title == Text {
    public init(_ title: some StringProtocol, action: @escaping @MainActor () -> Void) {}
}
extension Button where Title == Label<Text, Image> {
    public init(
        _ title: some StringProtocol, systemImage: String,
        action: @escaping @MainActor () -> Void
    ) {}
}
public struct TextField: Primitive {
    public init(_ title: some StringProtocol, text: Binding<String>) {}
}
public struct Spacer: Primitive { public init() {} }
public struct ProgressView<Title: View>: Primitive {}
extension ProgressView where Title == EmptyView { public init() {} }
extension ProgressView {
    public init<V: BinaryFloatingPoint>(
        value: V?, total: V = 1.0, @ViewBuilder label: () -> Title
    ) {}
}
public struct ContentUnavailableView: Primitive {
    public init(_ title: some StringProtocol, systemImage: String, description: Text? = nil) {}
}
public struct LabeledContent: Primitive {
    public init(_ title: some StringProtocol, value: some StringProtocol) {}
}
public struct ShareLink: Primitive {
    public init(_ title: some StringProtocol, item: String) {}
}
public struct Menu<Title: View, Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Title) {}
}
public struct Picker<Selection: Hashable, Content: View>: Primitive {
    public init(
        _ title: some StringProtocol, selection: Binding<Selection>,
        @ViewBuilder content: () -> Content
    ) {}
}
public struct TabView<Selection: Hashable, Content: View>: Primitive {
    public init(selection: Binding<Selection>?, @ViewBuilder content: () -> Content) {}
}
public struct NavigationStack<Content: View>: Primitive {
    public init(@ViewBuilder root: () -> Content) {}
}
public struct List<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct ScrollView<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct Section<Content: View>: Primitive {
    public init(_ title: some StringProtocol, @ViewBuilder content: () -> Content) {}
}
public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: Primitive {
    public init(
        _ data: Data, id: KeyPath<Data.Element, ID>,
        @ViewBuilder content: @escaping (Data.Element) -> Content
    ) {}
}
extension ForEach where Data.Element: Identifiable, ID == Data.Element.ID {
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {}
}
public enum HorizontalAlignment: Sendable { case leading, center, trailing }
public struct HStack<Content: View>: Primitive {
    public init(spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {}
}
public struct VStack<Content: View>: Primitive {
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil,
        @ViewBuilder content: () -> Content
    ) {}
}

// Modifiers.

public struct Font: Sendable {
    public static let body = Font()
    public static let caption = Font()
}
public protocol ShapeStyle {}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var secondary: HierarchicalShapeStyle { HierarchicalShapeStyle() }
}
public enum ContentMode: Sendable { case fit, fill }
public protocol TextFieldStyle {}
public struct RoundedBorderTextFieldStyle: TextFieldStyle {}
extension TextFieldStyle where Self == RoundedBorderTextFieldStyle {
    public static var roundedBorder: Self { RoundedBorderTextFieldStyle() }
}
public struct SubmitTriggers: Sendable {
    public static let search = SubmitTriggers()
    public static let text = SubmitTriggers()
}
public enum AccessibilityChildBehavior: Sendable { case ignore, combine, contain }

extension View {
    public func font(_ font: Font?) -> some View { AnyContent() }
    public func monospacedDigit() -> some View { AnyContent() }
    public func foregroundStyle(_ style: some ShapeStyle) -> some View { AnyContent() }
    public func padding() -> some View { AnyContent() }
    public func frame(width: CGFloat? = nil, height: CGFloat? = nil) -> some View {
        AnyContent()
    }
    public func frame(maxWidth: CGFloat? = nil, maxHeight: CGFloat? = nil) -> some View {
        AnyContent()
    }
    public func scaledToFit() -> some View { AnyContent() }
    public func scaledToFill() -> some View { AnyContent() }
    public func clipped() -> some View { AnyContent() }
    public func aspectRatio(_ ratio: CGFloat?, contentMode: ContentMode) -> some View {
        AnyContent()
    }
    public func disabled(_ disabled: Bool) -> some View { AnyContent() }
    public func tag<V: Hashable>(_ tag: V) -> some View { AnyContent() }
    public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View { AnyContent() }
    public func navigationTitle(_ title: some StringProtocol) -> some View { AnyContent() }
    public func textFieldStyle(_ style: some TextFieldStyle) -> some View { AnyContent() }
    public func searchable(text: Binding<String>, prompt: some StringProtocol) -> some View {
        AnyContent()
    }
    public func onSubmit(
        of triggers: SubmitTriggers = .text, _ action: @escaping () -> Void
    ) -> some View { AnyContent() }
    public func environment<T: AnyObject & Observable>(_ object: T?) -> some View {
        AnyContent()
    }
    public func task(
        priority: TaskPriority = .userInitiated,
        @_inheritActorContext _ action: @escaping @Sendable () async -> Void
    ) -> some View { AnyContent() }
    public func task<T: Equatable>(
        id value: T, priority: TaskPriority = .userInitiated,
        @_inheritActorContext _ action: @escaping @Sendable () async -> Void
    ) -> some View { AnyContent() }
    public func onChange<V: Equatable>(
        of value: V, initial: Bool = false, _ action: @escaping (V, V) -> Void
    ) -> some View { AnyContent() }
    public func onReceive(
        _ publisher: NotificationCenter.Publisher,
        perform action: @escaping (Notification) -> Void
    ) -> some View { AnyContent() }
    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType],
        allowsMultipleSelection: Bool,
        onCompletion: @escaping (Result<[URL], any Error>) -> Void
    ) -> some View { AnyContent() }
    public func accessibilityLabel(_ label: some StringProtocol) -> some View { AnyContent() }
    public func accessibilityValue(_ value: some StringProtocol) -> some View { AnyContent() }
    public func accessibilityHint(_ hint: some StringProtocol) -> some View { AnyContent() }
    public func accessibilityElement(children: AccessibilityChildBehavior) -> some View {
        AnyContent()
    }
}

// Toolbars.

public enum ToolbarItemPlacement: Sendable { case topBarLeading, topBarTrailing }
@MainActor @preconcurrency public protocol ToolbarContent {}
public struct ToolbarItem<Content: View>: ToolbarContent {
    public init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) {}
}
public struct ToolbarItems: ToolbarContent { nonisolated init() {} }
@resultBuilder public struct ToolbarContentBuilder {
    public static func buildBlock<each Content: ToolbarContent>(
        _ content: repeat each Content
    ) -> ToolbarItems { ToolbarItems() }
}
extension View {
    public func toolbar<Content: View>(@ViewBuilder content: () -> Content) -> some View {
        AnyContent()
    }
    public func toolbar<Content: ToolbarContent>(
        @ToolbarContentBuilder content: () -> Content
    ) -> some View { AnyContent() }
}

// UIKit inside.

public struct UIViewRepresentableContext<Representable> {}
@MainActor @preconcurrency public protocol UIViewRepresentable: View where Body == Never {
    associatedtype UIViewType: UIView
    typealias Context = UIViewRepresentableContext<Self>
    func makeUIView(context: Context) -> UIViewType
    func updateUIView(_ uiView: UIViewType, context: Context)
}
extension UIViewRepresentable { public var body: Never { fatalError() } }

// What Foundation and Combine have on Apple's systems.

extension NotificationCenter {
    public struct Publisher: Sendable {}
    public func publisher(for name: Notification.Name, object: AnyObject? = nil) -> Publisher {
        Publisher()
    }
}

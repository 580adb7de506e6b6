import Foundation

/// What went wrong, as one sentence for the user that says what was given and what to do.
public enum OnDeviceError: Error, Sendable, Hashable {
    /// A package without a preprocessing contract, or with an impossible one.
    case contract(String)
    /// An image without pixels, or whose pixels do not fit its size.
    case image(String)
    /// A file that is missing or cannot be read or written.
    case file(String)
    /// A file of embeddings that is damaged, or that does not fit the query.
    case index(String)
    /// A file that is no tokenizer of a CLIP.
    case tokenizer(String)
    /// Labels that do not fit the model's classes.
    case labels(String)
    /// An array of another shape than is expected.
    case shape(String)
    /// A golden file that cannot be read, or does not belong to the model.
    case golden(String)
    /// A model that cannot be found, loaded or run.
    case model(String)
    /// A camera or a photo library that the user has not allowed.
    case permission(String)

    /// The sentence.
    public var message: String {
        switch self {
        case .contract(let text), .image(let text), .file(let text), .index(let text),
            .tokenizer(let text), .labels(let text), .shape(let text), .golden(let text),
            .model(let text), .permission(let text):
            text
        }
    }
}

extension OnDeviceError: LocalizedError, CustomStringConvertible {
    /// The sentence, where Foundation looks for it.
    public var errorDescription: String? { message }

    /// The sentence.
    public var description: String { message }
}

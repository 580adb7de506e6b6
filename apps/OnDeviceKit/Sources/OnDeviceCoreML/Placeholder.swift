#if canImport(CoreML)
#endif

#if canImport(CoreAI)
#endif

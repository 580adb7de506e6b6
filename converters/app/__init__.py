"""From a package to an Xcode project that runs it."""

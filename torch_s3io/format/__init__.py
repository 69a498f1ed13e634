"""What lies on disk: record layouts, ``.npy`` headers, manifests, which files a data set has."""

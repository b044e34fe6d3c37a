"""Weight sharing: a layer's weights become few different values, which training moves (Han et al. 2016, Deep Compression, section 3)."""

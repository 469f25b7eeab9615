"""Models on other machines: the Open Inference Protocol (KServe v2, Triton) through tritonclient."""

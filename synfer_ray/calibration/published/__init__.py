"""Published networks in plain torch, each with the key names of the checkpoint that its authors released.

torchvision and timm are not needed. The layouts were read from the authors' public code; no published weights
were at hand when this was written, so what is proven is that every key and shape fits and that the forward
pass computes what the authors' code computes from the same weights.
"""
